"""Images that come too fast, too old or out of time, and a machine that runs out of memory: the session goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from session_rig import DEADLINE_S, SessionRig, click

from sam2_ros.node.diagnostics import DiagnosticsReporter
from sam2_ros.node.services import why_pending
from sam2_ros.session import stats
from sam2_ros.session.events import EventType
from sam2_ros.session.parameter_spec import ParameterError
from sam2_ros.session.parameters import parse
from sam2_ros.session.stats import TOO_OLD_S, StatsCollector


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["device", "machine", "allocator"],
)
def test_out_of_memory_twice_drops_the_newest_object_says_so_and_goes_on(
    make_rig: Callable[..., SessionRig], error: Exception
) -> None:
    rig = make_rig()
    rig.prompt(click("old"), click("new"))
    rig.offer(1)
    rig.wait_for(1)
    rig.tracker.fail_next = [error, error]
    rig.events.clear()
    rig.offer(2)
    rig.settle()
    rig.offer(3)
    assert [item.tracked.object_id for item in rig.wait_for(2).objects] == ["old"]
    (removed,) = rig.events
    assert (removed.type, removed.object_id, removed.label, removed.header) == (EventType.REMOVED, "new", 2, "header 2")
    assert "out of memory, 'new', the newest object, was dropped" in removed.message
    assert rig.session.stats().last_error == removed.message  # what /diagnostics shows
    assert rig.prompt(click("another"))[0].label == 3


def test_out_of_memory_once_costs_no_object_and_no_image(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig()
    rig.prompt(click("a"), click("b"))
    rig.tracker.fail_next = [MemoryError()]
    rig.offer(1)
    assert [item.tracked.object_id for item in rig.wait_for(1).objects] == ["a", "b"]
    assert (rig.session.stats().failed, rig.session.stats().last_error) == (0, "")
    assert EventType.REMOVED not in [event.type for event in rig.events]


@pytest.mark.parametrize("name", ["save_state", "load_state"])
def test_a_session_is_saved_and_loaded_once_memory_was_freed(
    make_rig: Callable[..., SessionRig], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rig = make_rig()
    rig.prompt(click("a"))
    real, errors = getattr(rig.tracker, name), [MemoryError()]

    def short_of_memory(*state: Any) -> Any:
        if errors:
            raise errors.pop()
        return real(*state)

    monkeypatch.setattr(rig.tracker, name, short_of_memory)
    saved = rig.session.save().result(DEADLINE_S)
    view = rig.session.load(saved, "a.pt").result(DEADLINE_S)
    assert [item.tracked.object_id for item in view.objects] == ["a"] and not errors


def test_out_of_memory_again_and_again_leaves_a_session_without_objects_and_is_logged_once(
    make_rig: Callable[..., SessionRig], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "REPEAT_ERROR_S", 600.0)  # freeing memory takes long on a busy machine
    rig = make_rig()
    rig.prompt(click("a"), click("b"))
    rig.tracker.fail_next = [MemoryError(f"{size} GiB, please") for size in range(10)]
    for value in range(5):
        rig.offer(value)
        rig.settle()
    rig.offer(9)
    assert rig.wait_for(1).objects == ()
    assert [event.object_id for event in rig.events if event.type is EventType.REMOVED] == ["b", "a"]
    logged = [record.getMessage() for record in caplog.records]
    assert ["no object to drop" in text for text in logged] == [False, False, True]


def test_every_frame_is_processed_in_order_when_asked(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig(process_every_frame=True)
    rig.tracker.gate.clear()
    for value in range(20):
        rig.offer(value, stamp_s=1 + value / 30)
    rig.tracker.gate.set()
    assert [rig.wait_for(count).header for count in range(1, 21)] == [f"header {value}" for value in range(20)]
    assert rig.session.stats().dropped == 0


def test_images_that_are_too_old_are_left_out(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig(max_image_age_s=0.5)
    rig.now_ns = 10_000_000_000
    for value, stamp_s in ((1, 9.4), (2, 9.6), (3, 0), (4, 11)):
        rig.offer(value, stamp_s=stamp_s)
        rig.settle()
    assert rig.tracker.calls == ["step 2", "step 3", "step 4"]  # 3 has no stamp, 4 is of a clock that is ahead
    assert rig.session.stats().skipped == 1


def test_images_that_are_all_too_old_are_a_warning_until_one_is_not(
    make_rig: Callable[..., SessionRig], caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig(max_image_age_s=0.5)
    now_s = 100.0
    rig.session._stats._clock = lambda: now_s  # type: ignore[method-assign]
    reporter = DiagnosticsReporter("node", lambda: parse({"max_image_age_s": 0.5}))

    def status(state: str = "active") -> Any:
        return reporter.report(rig.session, state=state, trouble="", silent=False)

    assert status().message == "active"
    rig.now_ns = 10_000_000_000
    for stamp_s in (8.0, 8.1):
        rig.offer(1, stamp_s=stamp_s)
        rig.settle()
    assert status().message == "active", "a jam of a moment is not worth a warning"
    assert not caplog.records
    now_s += TOO_OLD_S
    assert status().level == DiagnosticStatus.WARN and status("inactive").level == DiagnosticStatus.OK
    assert "the newest is 1.90 s old, max_image_age_s is 0.5" in status().message and "use_sim_time" in status().message
    assert "the newest was 1.90 s old" in why_pending(rig.session, 2.0, "")
    rig.offer(2, stamp_s=9.9)
    rig.settle()
    assert status().message == "active" and rig.session.stats().skipped == 2


def test_images_that_stay_too_old_are_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = iter(np.arange(0, 11, 0.5))
    stats = StatsCollector(lambda: next(clock))
    for _ in range(22):
        stats.note_too_old(1.9, 0.5)
    assert [record.getMessage()[:24] for record in caplog.records] == ["every image is too old: "] * 2


@pytest.mark.parametrize(
    ("stamps_s", "resets"),
    [
        ([5, 5, 5], 0),
        ([0, 0, 0], 0),
        ([5, 0, 5.1], 0),
        ([5, 4.9, 5], 0),
        ([5, 5000, 5.1, 5.2], 0),
        ([5, 1, 1.1], 1),
        ([5, 1, 5.1], 0),
    ],
    ids=["duplicated", "zero", "one zero", "out of order", "far future", "backwards", "one backwards"],
)
def test_stamps(make_rig: Callable[..., SessionRig], stamps_s: list[float], resets: int) -> None:
    rig = make_rig()
    rig.prompt(click("a"))
    for count, stamp_s in enumerate(stamps_s, 1):
        rig.offer(count, stamp_s=stamp_s)
        rig.wait_for(count)
        rig.passed_s += 1.0
    assert rig.tracker.calls.count("reset") == resets
    assert [event.type for event in rig.events].count(EventType.RESET) == resets
    assert rig.tracker.stamps_s == [stamp_s or None for stamp_s in stamps_s]


def test_a_reset_by_time_says_why(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig()
    for count, stamp_s in enumerate((100, 5, 5.1), 1):
        rig.offer(count, stamp_s=stamp_s)
        rig.wait_for(count)
        rig.passed_s += 1.0
    (event,) = rig.events
    assert event.type is EventType.RESET and "went back by 95.00 s" in event.message
    assert event.time_went_back  # depth that came since is of the new time, and is kept


def test_an_image_of_4k_and_a_small_one_after_it(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig()
    rig.prompt(click("a"))
    large, small = (np.zeros((*size, 3), np.uint8) for size in ((2160, 3840), (480, 640)))
    assert rig.show(large, 1.0).result.label_image.shape == (2160, 3840)
    assert rig.show(small, 2.0).result.label_image.shape == (480, 640)
    assert rig.session.stats().failed == 0


def test_stamps_that_are_zero_or_come_twice_change_nothing(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig()
    rig.prompt(click("a"))
    for stamp_s in (5.0, 5.0, 0.0, 0.0, 5.0):
        view = rig.show(np.zeros((8, 10, 3), np.uint8), stamp_s)
        assert [item.tracked.object_id for item in view.objects] == ["a"]
    assert rig.session.stats().failed == 0
    assert EventType.RESET not in [event.type for event in rig.events]


def test_a_camera_of_200_hz(make_rig: Callable[..., SessionRig], caplog: pytest.LogCaptureFixture) -> None:
    rig = make_rig()
    with caplog.at_level(logging.WARNING):
        for value in range(400):
            rig.offer(value % 256, stamp_s=1 + value / 200)
        rig.settle()
    stats = rig.session.stats()
    assert stats.received == 400 and stats.processed + stats.dropped == 400 and stats.failed == 0
    assert caplog.text == ""


@pytest.mark.parametrize(
    "values",
    [
        {"max_rate_hz": -1.0},
        {"max_rate_hz": float("nan")},
        {"max_image_age_s": float("inf")},
        {"prompt_buffer_s": -0.1},
        {"prompt_buffer_s": 1e9},
        {"catchup_budget_ms": float("nan")},
        {"catchup_budget_ms": "fast"},
        {"process_every_frame": 1},
        {"process_every_frame": True, "max_rate_hz": 5.0},
        {"process_every_frame": True, "max_image_age_s": 1.0},
    ],
    ids=str,
)
def test_nonsense_in_parameters_is_rejected_by_name(values: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(values))):
        parse(values)


def test_the_buffer_is_in_images() -> None:
    assert [parse({"prompt_buffer_s": s}).buffer_frames for s in (0.0, 0.01, 1.0, 10.0)] == [0, 1, 30, 300]
