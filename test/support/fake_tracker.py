"""A tracker without a network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from sam2_ros.tracking.types import FrameResult, ObjectState, PromptAction, PromptError, TrackedMask

DEADLINE_S = 20.0


class FakeTracker:
    """The tracker's interface with the simplest masks: a box of 3 x 3 px around the latest positive point.

    ``hidden`` objects are not there. ``gate`` holds ``step`` until it is set, or one of ``gates`` for the image of that
    value; ``fail_next`` makes the next steps raise; ``calls`` lists what happened.
    """

    model_name = "fake"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.gates: dict[int, threading.Event] = {}
        self.in_step = threading.Event()
        self.fail_next: list[BaseException] = []
        self.calls: list[str] = []
        self.hidden: dict[str, ObjectState] = {}  # objects that are not visible, and their state
        self.behind: dict[str, int] = {}
        self.on_catch_up: Callable[[], None] = lambda: None
        self.stamps_s: list[float | None] = []
        self.times_s: list[float | None] = []
        self._labels: dict[str, int] = {}
        self._points: dict[str, tuple[float, float]] = {}
        self._next_label = 1
        self._frame_index = 0

    @property
    def object_ids(self) -> tuple[str, ...]:
        return tuple(self._labels)

    def label_of(self, object_id: str) -> int:
        return self._labels[object_id]

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        return ()

    @property
    def frames_behind(self) -> dict[str, int]:
        return self.behind

    def add_prompt(
        self,
        object_id: str,
        *,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        mask: Any = None,
        action: PromptAction = PromptAction.ADD,
        stamp_s: float | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> int:
        if points is None and box is None and mask is None:
            raise PromptError("empty prompt: expected points, a box or a mask")
        if points is not None and frame_size is not None:
            height, width = frame_size
            if not all(0 <= x < width and 0 <= y < height for x, y in points):
                raise PromptError(f"point outside the image of {width} x {height}")
        if object_id not in self._labels:
            self._labels[object_id] = self._next_label
            self._next_label += 1
        if points is not None:
            self._points[object_id] = (float(points[-1][0]), float(points[-1][1]))
        elif box is not None:
            self._points[object_id] = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        else:
            self._points[object_id] = tuple(float(np.mean(axis)) for axis in np.nonzero(mask)[::-1])
        verb = "prompt" if action is PromptAction.ADD else action.name.lower()
        self.calls.append(f"{verb} {object_id}" + ("" if stamp_s is None else f" at {stamp_s:g} s"))
        return self._labels[object_id]

    def undo(self, object_id: str) -> None:
        self.calls.append(f"undo {object_id}")

    def catch_up(self, budget_ms: float | None = None) -> int:
        self.calls.append("catch up")
        self.behind = {object_id: count - 1 for object_id, count in self.behind.items() if count > 1}
        self.on_catch_up()
        return max(self.behind.values(), default=0)

    def save_state(self) -> dict[str, Any]:
        objects = [
            {"object_id": object_id, "label": label, "point": list(self._points[object_id])}
            for object_id, label in self._labels.items()
        ]
        return {"model": self.model_name, "next_label": self._next_label, "objects": objects}

    def load_state(self, state: Any) -> None:
        if state["model"] != self.model_name:
            raise ValueError(f"model: expected {self.model_name}, got {state['model']}")
        self._labels = {each["object_id"]: each["label"] for each in state["objects"]}
        self._points = {each["object_id"]: tuple(each["point"]) for each in state["objects"]}
        self._next_label = state["next_label"]
        self.calls.append("load")

    def step(self, image_rgb: np.ndarray, stamp_s: float | None = None, time_s: float | None = None) -> FrameResult:
        value = int(image_rgb[0, 0, 0])
        self.in_step.set()
        assert self.gates.get(value, self.gate).wait(DEADLINE_S), "the test never opened the gate"
        if self.fail_next:
            raise self.fail_next.pop(0)
        height, width = image_rgb.shape[:2]
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
            mask &= object_id not in self.hidden
            label_image[mask] = self._labels[object_id]
            objects.append(self._tracked(object_id, mask))
        self.calls.append(f"step {value}")
        self.stamps_s.append(stamp_s)
        self.times_s.append(time_s)
        result = FrameResult(self._frame_index, tuple(objects), label_image, 1.0, tuple(rejected))
        self._frame_index += 1
        return result

    def _tracked(self, object_id: str, mask: np.ndarray) -> TrackedMask:
        rows, columns = np.nonzero(mask)
        seen = bool(mask.any())
        return TrackedMask(
            object_id=object_id,
            label=self._labels[object_id],
            state=self.hidden.get(object_id, ObjectState.TRACKED),
            score=0.9 if seen else 0.1,
            mask_quality=0.8,
            mask=mask,
            area_px=int(mask.sum()),
            box_xyxy=(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
            if seen
            else None,
            centroid_xy=(float(columns.mean()), float(rows.mean())) if seen else None,
        )

    def image_predictor(self) -> Any:
        """The one part with a network, if a small and random one."""
        from tiny_model import tiny_model

        from sam2_ros.tracking.image_predictor import ImagePredictor

        return ImagePredictor(tiny_model())

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
