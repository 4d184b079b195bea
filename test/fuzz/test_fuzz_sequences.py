"""Any order of commands and images: what is promised of labels, outputs and memory holds after each of them."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from session_rig import SECOND, SessionRig, click
from snapshots import session_snapshot
from strange_messages import check_serialises
from tiny_model import noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.node.conversions import label_image_to_message, view_to_message
from sam2_ros.session.events import EventType
from sam2_ros.session.objects import PromptAction, PromptOutcome, TrackingView
from sam2_ros.session.persistence import SessionFileError
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, PromptError

BUFFER_FRAMES = 4
SIZES = ((48, 80), (80, 48), (5, 7), (33, 1))
FRAMES = {size: noise_frames(3, *size) for size in SIZES}
ids = st.sampled_from(["", "mug", "tin", "ball"])
known_ids = ids.filter(bool)
coordinates = st.one_of(st.integers(0, 4), st.integers(0, 90))
# A moment that the prompt is about, seconds before the latest image; None: the next image.
moments_s = st.sampled_from([None, None, 0.0, 0.1, 0.2, 0.9, -5.0])


class Sequences(RuleBasedStateMachine):
    """``model`` is set by the test; half of what it sees is visible."""

    model: SAM2

    @initialize(budget_ms=st.sampled_from([0.0, 1000.0]))
    def start(self, budget_ms: float) -> None:
        tracker = Tracker(self.model, lost_after_frames=2, buffer_frames=BUFFER_FRAMES, catchup_budget_ms=budget_ms)
        self.rig = SessionRig(tracker)
        self.time_ns = 10_000 * SECOND  # far from 0, which means "no stamp"
        self.shown = 0
        self.label_of: dict[str, int] = {}  # of every object there is
        self.highest_label = 0
        self.saved: dict | None = None
        self.prompt("mug", PromptAction.ADD, 2, 2, 1, None)
        self.show(SIZES[0], 0.1, count=12)  # longer than anything is remembered

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.rig.close()

    # What is done ----------------------------------------------------------------------------------------------------

    @rule(
        object_id=ids,
        action=st.sampled_from([PromptAction.ADD, PromptAction.ADD, PromptAction.REFINE, PromptAction.REPLACE]),
        x=coordinates,
        y=coordinates,
        label=st.sampled_from([1, 1, 0]),
        back_s=moments_s,
    )
    def prompt(self, object_id: str, action: PromptAction, x: int, y: int, label: int, back_s: float | None) -> None:
        stamp_ns = 0 if back_s is None else self.time_ns - round(back_s * SECOND)
        request = click(object_id, x, y, action=action, stamp_ns=stamp_ns)
        request.point_labels[0] = label
        before = session_snapshot(self.rig.session)
        (outcome,) = self.rig.prompt(request)
        if not outcome.accepted:
            assert outcome.error and session_snapshot(self.rig.session) == before
        elif action is PromptAction.ADD:
            self.note_new(outcome)
        else:
            assert self.label_of[object_id] == outcome.label

    @rule(object_id=known_ids)
    def undo(self, object_id: str) -> None:
        before = session_snapshot(self.rig.session)
        (outcome,) = self.rig.prompt(click(object_id, action=PromptAction.UNDO))
        if not outcome.accepted:
            assert outcome.error and session_snapshot(self.rig.session) == before

    @rule(object_ids=st.lists(known_ids, min_size=1, max_size=2))
    def remove(self, object_ids: list[str]) -> None:
        before = session_snapshot(self.rig.session)
        try:
            removed = self.rig.session.remove(object_ids).result()
        except PromptError as error:
            assert str(error) and session_snapshot(self.rig.session) == before
            assert not set(object_ids) <= set(self.label_of)
        else:
            assert set(removed) == set(object_ids)
            self.label_of = {key: label for key, label in self.label_of.items() if key not in removed}

    @rule()
    def clear(self) -> None:
        assert set(self.rig.session.clear().result()) == set(self.label_of)
        self.label_of = {}

    @rule()
    def reset(self) -> None:
        assert set(self.rig.session.reset().result()) == set(self.label_of)
        self.label_of, self.highest_label = {}, 0

    @rule(
        size=st.sampled_from([*SIZES[:1] * 4, *SIZES]),
        gap_s=st.sampled_from([0.1, 0.1, 0.1, 0.0, 3.0, 60.0, -0.2]),
        count=st.sampled_from([1, 1, 2, 12]),
    )
    def show(self, size: tuple[int, int], gap_s: float, count: int) -> None:
        self.time_ns += round(gap_s * SECOND)
        for _ in range(count):
            self.show_image(size)

    @rule()
    def show_after_a_jump_back(self) -> None:
        self.show_image(SIZES[0])  # an image in between, for one alone far ahead is not believed
        self.show_image(SIZES[0])
        self.time_ns -= 2 * SECOND
        resets = self.count_resets()
        self.show_image(SIZES[0])  # alone it is not believed
        assert self.count_resets() == resets
        self.rig.passed_s += 1.0
        self.show_image(SIZES[0])
        assert self.count_resets() == resets + 1 and not self.rig.session.view.objects
        self.label_of, self.highest_label = {}, 0

    @rule()
    def save(self) -> None:
        self.saved = self.rig.session.save().result()
        self.saved_labels = dict(self.label_of)
        self.saved_highest = self.highest_label

    @precondition(lambda self: self.saved is not None)
    @rule()
    def load(self) -> None:
        self.rig.session.load(self.saved, "s.pt").result()
        self.label_of, self.highest_label = dict(self.saved_labels), self.saved_highest

    @precondition(lambda self: self.saved is not None)
    @rule(name=st.sampled_from(["format", "tracker", "objects", "next_number"]))
    def load_what_is_damaged(self, name: str) -> None:
        before = session_snapshot(self.rig.session)
        with pytest.raises(SessionFileError):
            self.rig.session.load({**self.saved, name: None}, "s.pt").result()
        assert session_snapshot(self.rig.session) == before

    # What must hold --------------------------------------------------------------------------------------------------

    @invariant()
    def labels_belong_to_their_objects(self) -> None:
        if not hasattr(self, "rig"):
            return
        items = self.rig.session.view.objects
        assert {item.tracked.object_id: item.tracked.label for item in items} == self.label_of
        labels = [item.tracked.label for item in items]
        assert labels == sorted(set(labels)) and all(1 <= label <= self.highest_label for label in labels)
        check_serialises(view_to_message(self.rig.session.view, with_masks=True))

    @invariant()
    def memory_is_bounded(self) -> None:
        if not hasattr(self, "rig"):
            return
        state = self.rig.tracker._state
        policy = BankPolicy.of(self.model.config)
        assert len(state.past) <= BUFFER_FRAMES
        for mapping in (state.waiting, state.replays, state.out_of_reach, state.cleared):
            assert set(mapping) <= set(state.tracks)
        for track in state.tracks.values():
            assert len(track.conditioning) <= policy.num_conditioning
            assert len(track.recent) <= max(policy.num_spatial, policy.max_pointers)
        assert set(self.rig.session.events._known) == set(self.label_of)

    def show_image(self, size: tuple[int, int]) -> None:
        pixels = FRAMES[size][self.shown % 3]
        self.shown += 1
        resets = self.count_resets()
        self.rig.offer_pixels(pixels, stamp_s=self.time_ns / SECOND)
        self.rig.settle()
        stats = self.rig.session.stats()
        assert (stats.failed, stats.processed) == (0, self.shown), stats.last_error
        if self.count_resets() > resets:
            self.label_of, self.highest_label = {}, 0
        self.check_output(self.rig.published[-1], size)

    def check_output(self, view: TrackingView, size: tuple[int, int]) -> None:
        result = view.result
        assert result is not None and result.label_image.shape == size
        gone = {object_id for object_id, _ in result.rejected} - set(self.rig.tracker.object_ids)
        self.label_of = {key: label for key, label in self.label_of.items() if key not in gone}
        assert {item.object_id: item.label for item in result.objects} == self.label_of
        assert [item.tracked for item in view.objects] == list(result.objects)
        assert set(result.label_image.flat) <= {0, *self.label_of.values()}
        check_serialises(label_image_to_message(result.label_image, view_to_message(view, with_masks=False).header))
        for item in result.objects:
            assert item.state in ObjectState and item.mask.shape == size
            assert item.area_px == item.mask.sum() and (item.box_xyxy is None) == (item.area_px == 0)
            assert item.state is ObjectState.TRACKED or not item.mask.any()
            assert 0 <= item.score <= 1 and 0 <= item.mask_quality <= 1

    def note_new(self, outcome: PromptOutcome) -> None:
        assert outcome.object_id not in self.label_of
        assert outcome.label == self.highest_label + 1
        self.label_of[outcome.object_id] = self.highest_label = outcome.label

    def count_resets(self) -> int:
        return sum(event.type is EventType.RESET for event in self.rig.events)


@pytest.mark.parametrize("score_bias", [20.0, 0.5], ids=["always visible", "sometimes visible"])
def test_sequences(score_bias: float) -> None:
    Sequences.model = tiny_model(object_score_bias=score_bias)
    run_state_machine_as_test(Sequences, settings=settings(max_examples=10, stateful_step_count=30))
