"""Counting what a tracker says about the presence of its objects, and what a negative click takes away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2_ros import cli
from sam2_ros.data.clips.clip import Clip
from sam2_ros.evaluation import presence_scenes
from sam2_ros.evaluation.presence import (
    FirstPrompt,
    PresenceCounts,
    PresenceScene,
    Shown,
    evaluate_presence,
    presence_report,
    score_scene,
    shown_in_masks,
)
from sam2_ros.evaluation.presence_scenes import (
    cut_scenes,
    hidden_ball_scenes,
    masked_scene,
    plain_scenes,
    synthetic_cut_scenes,
)
from sam2_ros.evaluation.prompt_sampling import Click
from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask

SIZE = 40
FRAME = np.zeros((SIZE, SIZE, 3), np.uint8)


def box_mask(x0: int, x1: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:30, x0:x1] = True
    return mask


class Scripted:
    """Says of every object what it was told to say; of negative clicks it removes what it was told to remove."""

    def __init__(self, states: list[ObjectState], mask: np.ndarray, obeys: bool = True) -> None:
        self.states, self.mask, self.obeys = states, mask, obeys
        self.log: list[Any] = []
        self.frame, self.ids, self.removed = -1, (), ()

    def reset(self) -> None:
        self.frame, self.ids, self.removed = -1, (), ()

    def add_prompt(self, object_id: str, **prompt: Any) -> int:
        self.log.append((self.frame, object_id, {name: np.asarray(value).tolist() for name, value in prompt.items()}))
        self.ids = tuple(dict.fromkeys((*self.ids, object_id)))
        if self.obeys and prompt.get("labels") is not None and not prompt["labels"][0]:
            self.removed = (*self.removed, tuple(prompt["points"][0].astype(int)))
        return 1

    def step(self, image_rgb: np.ndarray) -> FrameResult:
        self.frame += 1
        mask = self.mask.copy()
        for x, y in self.removed:
            mask[y, x] = False
        state = self.states[self.frame]
        objects = tuple(
            TrackedMask(object_id, 1, state, 0.5, 0.5, mask, int(mask.sum()), None, None) for object_id in self.ids
        )
        return FrameResult(self.frame, objects, mask.astype(np.uint8), 1.0)


SEEN, HIDDEN, LOST = ObjectState.TRACKED, ObjectState.OCCLUDED, ObjectState.LOST


def scene_of(shown: list[Shown], masks: np.ndarray | None = None, objects: int = 1) -> PresenceScene:
    shown_tn = np.repeat(np.array(shown, np.int8)[:, None], objects, axis=1)
    prompts = (FirstPrompt(mask=box_mask(5, 15)),) * objects
    return PresenceScene("kind", "name", [FRAME] * len(shown), prompts, shown_tn, masks)


def test_every_object_frame_is_counted_by_state_but_the_first_and_the_uncertain_ones() -> None:
    shown = [Shown.YES, Shown.YES, Shown.YES, Shown.NO, Shown.NO, Shown.NO, Shown.HARDLY, Shown.YES]
    states = [HIDDEN, SEEN, HIDDEN, SEEN, HIDDEN, LOST, SEEN, SEEN]
    counts = score_scene(Scripted(states, box_mask(5, 15)), scene_of(shown, objects=2))
    assert counts == PresenceCounts(without=6, without_tracked=2, shown=6, shown_not_tracked=2)
    assert counts.false_tracked == counts.false_absent == pytest.approx(1 / 3)
    assert counts.negative_excluded is None and counts.region is None


def test_slivers_are_neither_shown_nor_absent() -> None:
    masks = np.stack([box_mask(0, 20), box_mask(0, 3), box_mask(0, 2), box_mask(0, 0)])[:, None]
    assert shown_in_masks(masks)[:, 0].tolist() == [Shown.YES, Shown.YES, Shown.HARDLY, Shown.NO]


def masks_of(frames: int, mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[None, None], frames, axis=0)


@pytest.mark.parametrize("obeys", [True, False])
def test_a_negative_click_goes_into_the_middle_of_the_largest_wrong_region_of_the_next_frame(obeys: bool) -> None:
    """The mask has 20 columns too much on the right and 4 on the left."""
    tracker = Scripted([SEEN] * 4, box_mask(0, 35), obeys)
    scene = scene_of([Shown.YES] * 4, masks_of(4, box_mask(4, 15)))
    counts = score_scene(tracker, scene)
    assert (counts.clicks, counts.excluded) == (1, int(obeys))
    assert counts.region == pytest.approx(11 / 35)
    frame, object_id, click = tracker.log[1]
    assert (frame, object_id, click["labels"]) == (0, "0", [0])
    x, y = click["points"][0]
    assert 23 <= x <= 26 and 18 <= y <= 21


def test_clicks_are_tried_on_copies_now_and_then() -> None:
    tracker = Scripted([SEEN] * 20, box_mask(0, 35))
    counts = score_scene(tracker, scene_of([Shown.YES] * 20, masks_of(20, box_mask(4, 15))))
    assert [entry[0] for entry in tracker.log if entry[2].get("labels") == [0]] == [0, 4, 8]
    assert counts.clicks == counts.excluded == 3
    assert tracker.removed == (), "a click changed the tracker that is measured"


@pytest.mark.parametrize(
    "predicted",
    [box_mask(4, 15), box_mask(2, 17), np.zeros((SIZE, SIZE), bool)],
    ids=["right", "a thin rim too much", "nothing"],
)
def test_what_is_hardly_wrong_is_not_clicked(predicted: np.ndarray) -> None:
    counts = score_scene(Scripted([SEEN] * 3, predicted), scene_of([Shown.YES] * 3, masks_of(3, box_mask(4, 15))))
    assert counts.clicks == 0


def test_where_the_object_is_about_to_be_is_not_clicked() -> None:
    masks = masks_of(2, box_mask(4, 15))
    masks[1, 0] = box_mask(4, 35)
    assert score_scene(Scripted([SEEN] * 2, box_mask(0, 35)), scene_of([Shown.YES] * 2, masks)).clicks == 0


def test_report_adds_kinds_up() -> None:
    first = scene_of([Shown.YES, Shown.NO, Shown.NO])
    second = replace(first, kind="other")
    table = evaluate_presence(Scripted([SEEN, SEEN, HIDDEN], box_mask(5, 15)), [first, second, second])
    report = presence_report(table, {"model": "m"})
    assert list(report["kinds"]) == ["kind", "other"]
    assert report["model"] == "m"
    assert (report["false_tracked"], report["frames_without"]) == (0.5, 6)
    assert report["kinds"]["other"]["frames_without"] == 4
    assert report["false_absent"] is None


def test_the_ball_is_hidden_and_comes_back() -> None:
    (scene,) = hidden_ball_scenes(range(7, 8))
    ball = scene.shown_tn[:, -1].tolist()
    assert ball[0] == ball[-1] == Shown.YES
    assert ball.count(Shown.NO) >= 10
    assert (scene.shown_tn[:, :-1] == Shown.YES).all(), "only the ball is hidden"
    for number, prompt in enumerate(scene.prompts):
        assert prompt.click is not None and scene.masks_tnhw is not None
        assert scene.masks_tnhw[0, number, int(prompt.click.y), int(prompt.click.x)]


def test_plain_scenes_show_nothing_for_a_while() -> None:
    scenes = list(plain_scenes(range(1)))
    assert [scene.name for scene in scenes] == [f"{kind}, seed 0" for kind in ("sky", "wall", "ground", "dark")]
    for scene in scenes:
        shown = scene.shown_tn[:, 0].tolist()
        assert len(shown) == len(scene.frames) == 34
        assert shown[:8] == [Shown.YES] * 8 and shown[8:28] == [Shown.NO] * 20
        assert shown[28:] == [Shown.HARDLY] * 2 + [Shown.YES] * 4
        empty = np.stack(scene.frames[8:28]).astype(int)
        assert len(np.unique(empty.reshape(20, -1), axis=0)) == 20, "the view stands still"
        assert empty.mean(axis=(1, 2)).std(axis=0).max() < 10


def test_clips_are_cut_to_each_other_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pointed = presence_scenes._Pointed
    clips = {"a": (pointed(click_xy=(0.5, 0.25)),), "b": (pointed(box_xyxy=(0.0, 0.0, 0.5, 1.0)),)}
    monkeypatch.setattr(presence_scenes, "REAL_CLIPS", clips)
    for name, gray, size_wh in (("a", 60, (64, 48)), ("b", 200, (96, 64))):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, size_wh)
        for _ in range(60):
            writer.write(np.full((size_wh[1], size_wh[0], 3), gray, np.uint8))
        writer.release()
    first, second = cut_scenes(tmp_path)
    assert (first.name, second.name) == ("a to b", "b to a")
    assert first.prompts[0].click == Click(32.0, 12.0, 1)
    assert second.prompts[0].box_xyxy == (0.0, 0.0, 48.0, 64.0)
    assert {frame.shape for frame in first.frames} == {(48, 64, 3)}
    bright = [frame.mean() > 130 for frame in first.frames]
    assert bright == [shown == Shown.NO for shown in first.shown_tn[:, 0]]
    assert 8 < bright.count(True) < len(bright) - 8


def test_photographs_are_cut_to_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def clips(*_args: Any) -> Any:
        def clip(seed: int) -> Clip:
            return Clip(np.full((16, SIZE, SIZE, 3), seed % 100, np.uint8), masks_of(16, box_mask(4, 15)))

        return clip

    monkeypatch.setattr(presence_scenes, "SyntheticClips", clips)
    first, second = synthetic_cut_scenes(None, 2)  # type: ignore[arg-type]
    assert first.shown_tn[:, 0].tolist() == [Shown.YES] * 8 + [Shown.NO] * 8
    grays = [int(frame[0, 0, 0]) for frame in first.frames]
    assert len(set(grays[:8])) == len(set(grays[8:])) == 1 and grays[0] != grays[8]
    assert first.masks_tnhw is not None and first.masks_tnhw[:8].any() and not first.masks_tnhw[8:].any()
    assert second.frames[0][0, 0, 0] != first.frames[0][0, 0, 0]


def test_a_clip_without_an_object_at_its_start_is_no_scene() -> None:
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((2, 2, SIZE, SIZE), bool)
    assert masked_scene("synthetic", "s", Clip(images, masks)) is None
    masks[0, 1] = box_mask(4, 15)
    scene = masked_scene("synthetic", "s", Clip(images, masks))
    assert scene is not None and scene.shown_tn.tolist() == [[Shown.YES], [Shown.NO]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "hold"], "a floor takes no clicks; expected a model"),
        (["--clips", "-1"], "--clips: expected 0 or more, got -1"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_arguments_are_rejected(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", "presence", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_command_measures_what_is_at_hand_and_says_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(presence_scenes, "hidden_ball_scenes", lambda: iter([scene_of([Shown.YES, Shown.NO])]))
    monkeypatch.setattr(presence_scenes, "plain_scenes", lambda: iter([]))
    monkeypatch.setattr(
        "sam2_ros.evaluation.trackers.tracker_by_name", lambda **_: Scripted([SEEN, HIDDEN, HIDDEN], box_mask(5, 15))
    )
    out = tmp_path / "scores.json"
    assert cli.main(["eval", "presence", "--data", str(tmp_path), "--json", str(out)]) == 0
    printed = capsys.readouterr()
    assert "left out: cut: " in printed.err and "left out: synthetic: " in printed.err
    assert '"false_tracked": 0.0' in printed.out.splitlines()[-1]
    assert '"left_out"' in out.read_text()
