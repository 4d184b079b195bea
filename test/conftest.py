"""A free ROS domain with the shipped Fast DDS profile, and fixtures for tests that need no network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from fake_tracker import FakeTracker
from ros_rig import RosRig

from sam2_ros.data.files.masks import write_index_png
from sam2_ros.tracking.types import FrameResult, ObjectState, PromptError, TrackedMask

# Before anything creates a participant. A wrong type in a message must fail where it is assigned, not when it is sent.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
PROFILE = Path(__file__).parents[1] / "config" / "fastdds.xml"
for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
    os.environ[variable] = str(PROFILE)


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test process on this machine uses; also set for processes started from here."""
    from domain_coordinator import domain_id

    with domain_id() as domain:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        yield domain


@pytest.fixture
def fake_tracker() -> FakeTracker:
    return FakeTracker()


@pytest.fixture
def make_ros_rig(ros_domain: int, fake_tracker: FakeTracker) -> Iterator[Callable[..., RosRig]]:
    """``make_ros_rig(parameter=value, ...)``: a rig that is not configured yet."""
    rigs: list[RosRig] = []

    def make(cli_args: list[str] | None = None, **overrides: Any) -> RosRig:
        rigs.append(RosRig(ros_domain, fake_tracker, overrides, cli_args))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def ros_rig(make_ros_rig: Callable[..., RosRig]) -> RosRig:
    """A rig whose node is active, with the default parameters."""
    rig = make_ros_rig()
    rig.start()
    return rig


class ColourTracker:
    """Has the tracker's methods; an object is whatever has the colour that was prompted.

    A negative click takes away the left half of the object, so that a test can see that it arrived.
    """

    model_name = "colour"

    def __init__(self) -> None:
        self.prompts: list[tuple[str, str, list[float]]] = []  # object id, kind, coordinates and labels
        self.resets = 0
        self._pending: dict[str, dict] = {}
        self._colours: dict[str, tuple[np.ndarray, bool]] = {}
        self._labels: dict[str, int] = {}
        self._frame_index = 0

    def __copy__(self) -> ColourTracker:
        other = type(self)()
        other.prompts, other.resets, other._frame_index = self.prompts, self.resets, self._frame_index
        other._pending, other._colours, other._labels = self._pending, dict(self._colours), dict(self._labels)
        return other

    def add_prompt(self, object_id, *, points=None, labels=None, box=None, mask=None, frame_size=None):  # type: ignore[no-untyped-def]
        kind, value = ("mask", None) if mask is not None else ("box", box) if box is not None else ("points", points)
        flat = [] if value is None else np.asarray(value, float).ravel().tolist()
        self.prompts.append((object_id, kind, flat + ([] if labels is None else [float(v) for v in labels])))
        earlier = self._pending.get(object_id)
        if earlier is not None and points is not None:  # clicks for one frame add up
            points, labels = [*earlier["points"], *points], [*earlier["labels"], *labels]
        self._pending = {
            **self._pending,
            object_id: {"points": points, "labels": labels, "box": box, "mask": mask},
        }
        return self._labels.setdefault(object_id, len(self._labels) + 1)

    def _check(self, object_id, *, points=None, labels=None, box=None, mask=None, frame_size=None):  # type: ignore[no-untyped-def]
        for x, y in [] if points is None else points:
            if not (0 <= x < frame_size[1] and 0 <= y < frame_size[0]):
                raise PromptError(f"point ({x}, {y}) is outside the image of {frame_size}")

    def follow_load(self) -> None:
        """There are no threads to follow it with."""

    def prefetch(self, image_rgb: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(image_rgb=image_rgb)

    def step(self, image: np.ndarray | SimpleNamespace) -> FrameResult:
        image_rgb = image.image_rgb if isinstance(image, SimpleNamespace) else image
        rejected = []
        for object_id, prompt in self._pending.items():
            try:
                self._check(object_id, **prompt, frame_size=image_rgb.shape[:2])
            except PromptError as error:
                rejected.append((object_id, str(error)))
                del self._labels[object_id]
                continue
            self._colours[object_id] = self._colour(prompt, image_rgb)
        self._pending = {}
        label_image = np.zeros(image_rgb.shape[:2], np.uint8)
        objects = tuple(self._tracked(object_id, image_rgb, label_image) for object_id in self._colours)
        self._frame_index += 1
        return FrameResult(self._frame_index - 1, objects, label_image, 1.0, tuple(rejected))

    def reset(self) -> None:
        prompts, resets = self.prompts, self.resets + 1
        self.__init__()  # type: ignore[misc]
        self.prompts, self.resets = prompts, resets

    @staticmethod
    def _colour(prompt: dict, image_rgb: np.ndarray) -> tuple[np.ndarray, bool]:
        if prompt["mask"] is not None:
            y, x = np.argwhere(prompt["mask"])[0]
        elif prompt["box"] is not None:
            x, y = (int(prompt["box"][0] + prompt["box"][2]) // 2, int(prompt["box"][1] + prompt["box"][3]) // 2)
        else:
            x, y = (int(v) for v in prompt["points"][0])
        labels = prompt["labels"]
        return image_rgb[y, x].astype(int), labels is not None and 0 in list(labels)

    def _tracked(self, object_id: str, image_rgb: np.ndarray, label_image: np.ndarray) -> TrackedMask:
        colour, cut = self._colours[object_id]
        mask = np.abs(image_rgb.astype(int) - colour).max(axis=2) < 30
        label = self._labels[object_id]
        if not mask.any():
            return TrackedMask(object_id, label, ObjectState.OCCLUDED, 0.0, 0.0, mask, 0, None, None)
        ys, xs = np.nonzero(mask)
        if cut:
            mask[:, : (xs.min() + xs.max() + 1) // 2] = False
            ys, xs = np.nonzero(mask)
        label_image[mask] = label
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        centroid = (float(xs.mean()), float(ys.mean()))
        return TrackedMask(object_id, label, ObjectState.TRACKED, 0.9, 0.8, mask, len(xs), box, centroid)


@pytest.fixture(scope="session", autouse=True)
def freed_memory_goes_back() -> Iterator[None]:
    """A command keeps what it frees for its next step; in a process of tests the most that one took would stay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sam2_ros.cli.keep_heap", lambda: False)
        yield


@pytest.fixture
def colour_tracker_class() -> type[ColourTracker]:
    """A tracker class without a network."""
    return ColourTracker


@pytest.fixture
def coloured_sequence(tmp_path: Path) -> Path:
    """``data/blocks/{images,masks}``: five frames of 32 x 48, a moving red block (7), a blue one (9) from frame 2."""
    folder = tmp_path / "data" / "blocks"
    (folder / "images").mkdir(parents=True)
    for index in range(5):
        image, values = np.full((32, 48, 3), 128, np.uint8), np.zeros((32, 48), np.uint8)
        blocks = [(7, (255, 0, 0), 4 + 2 * index, 4)]
        blocks += [(9, (0, 0, 255), 30, 18)] if index >= 2 else []
        for value, colour_rgb, x0, y0 in blocks:
            image[y0 : y0 + 10, x0 : x0 + 12] = colour_rgb
            values[y0 : y0 + 10, x0 : x0 + 12] = value
        cv2.imwrite(str(folder / "images" / f"{index:05d}.png"), image[..., ::-1])
        write_index_png(folder / "masks" / f"{index:05d}.png", values)
    return tmp_path / "data"
