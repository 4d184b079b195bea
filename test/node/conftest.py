"""What the node's tests share: a free ROS domain, the shipped Fast DDS profile, a tracker without a network."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2_ros.tracking.types import FrameResult, ObjectState, PromptError, TrackedMask

# Before anything creates a participant. A wrong type in a message must fail where it is assigned, not when it is sent.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
PROFILE = Path(__file__).parents[2] / "config" / "fastdds.xml"
for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
    os.environ[variable] = str(PROFILE)

DEADLINE_S = 20.0


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test process on this machine uses; also set for processes started from here."""
    from domain_coordinator import domain_id

    with domain_id() as domain:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        yield domain


class FakeTracker:
    """The tracker's interface with the simplest masks: a box of 3 x 3 px around the latest positive point.

    ``gate`` holds ``step`` until it is set; ``fail_next`` makes the next steps raise; ``calls`` lists what happened.
    """

    model_name = "fake"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.in_step = threading.Event()
        self.fail_next: list[BaseException] = []
        self.calls: list[str] = []
        self.frame_size: tuple[int, int] | None = None
        self._labels: dict[str, int] = {}
        self._points: dict[str, tuple[float, float]] = {}
        self._next_label = 1
        self._frame_index = 0

    @property
    def object_ids(self) -> tuple[str, ...]:
        return tuple(self._labels)

    def label_of(self, object_id: str) -> int:
        return self._labels[object_id]

    def validate_prompt(
        self, object_id: str, *, points: Any, labels: Any, box: Any, mask: Any, frame_size: tuple[int, int] | None
    ) -> None:
        if points is None and box is None and mask is None:
            raise PromptError("empty prompt: expected points, a box or a mask")
        if points is not None and frame_size is not None:
            height, width = frame_size
            if not all(0 <= x < width and 0 <= y < height for x, y in points):
                raise PromptError(f"point outside the image of {width} x {height}")

    def add_prompt(self, object_id: str, *, points: Any, labels: Any, box: Any, mask: Any) -> int:
        self.validate_prompt(object_id, points=points, labels=labels, box=box, mask=mask, frame_size=None)
        if object_id not in self._labels:
            self._labels[object_id] = self._next_label
            self._next_label += 1
        if points is not None:
            self._points[object_id] = (float(points[-1][0]), float(points[-1][1]))
        elif box is not None:
            self._points[object_id] = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        else:
            self._points[object_id] = tuple(float(np.mean(axis)) for axis in np.nonzero(mask)[::-1])
        self.calls.append(f"prompt {object_id}")
        return self._labels[object_id]

    def step(self, image_rgb: np.ndarray) -> FrameResult:
        self.in_step.set()
        assert self.gate.wait(DEADLINE_S), "the test never opened the gate"
        if self.fail_next:
            raise self.fail_next.pop(0)
        height, width = self.frame_size = image_rgb.shape[:2]
        label_image = np.zeros((height, width), dtype=np.uint8)
        objects, rejected = [], []
        for object_id in tuple(self._labels):
            x, y = (round(value) for value in self._points[object_id])
            if not (0 <= x < width and 0 <= y < height):
                rejected.append((object_id, f"point outside the image of {width} x {height}"))
                self.remove(object_id)
                continue
            mask = np.zeros((height, width), dtype=np.bool_)
            mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
            label_image[mask] = self._labels[object_id]
            objects.append(self._tracked(object_id, mask))
        self.calls.append(f"step {int(image_rgb[0, 0, 0])}")
        result = FrameResult(self._frame_index, tuple(objects), label_image, 1.0, tuple(rejected))
        self._frame_index += 1
        return result

    def _tracked(self, object_id: str, mask: np.ndarray) -> TrackedMask:
        rows, columns = np.nonzero(mask)
        return TrackedMask(
            object_id=object_id,
            label=self._labels[object_id],
            state=ObjectState.TRACKED,
            score=0.9,
            mask_quality=0.8,
            mask=mask,
            area_px=int(mask.sum()),
            box_xyxy=(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1),
            centroid_xy=(float(columns.mean()), float(rows.mean())),
        )

    def remove(self, object_id: str) -> None:
        del self._labels[object_id]
        del self._points[object_id]
        self.calls.append(f"remove {object_id}")

    def clear(self) -> None:
        self._labels.clear()
        self._points.clear()
        self.calls.append("clear")

    def reset(self) -> None:
        self.clear()
        self.calls[-1] = "reset"
        self._next_label = 1
        self._frame_index = 0


@pytest.fixture
def fake_tracker() -> FakeTracker:
    return FakeTracker()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """``wait_until(condition, turn=..., why=...)``: call ``turn`` until ``condition()`` holds, or fail at the deadline.

    ``turn`` makes progress or blocks for a moment: one spin of an executor, or waiting on an event.
    """

    def wait(condition: Callable[[], bool], *, turn: Callable[[], object], why: str) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s, f"not within {DEADLINE_S:.0f} s: {why}"
            turn()

    return wait
