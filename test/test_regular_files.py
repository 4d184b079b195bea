"""Whoever reads a file that a user or a request names: what has no end is not opened, and damage is one line."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sam2_ros.annotate.recordings import Recording
from sam2_ros.annotate.sources import find_sources
from sam2_ros.annotate.storage import InteractionLog, read_json
from sam2_ros.bringup.parameter_file import read_parameter_file
from sam2_ros.data.files.images import read_image_rgb
from sam2_ros.data.files.masks import read_index_png
from sam2_ros.data.files.obj_models import ModelFile, find_models
from sam2_ros.data.files.photo_folders import PhotoFolder, scene_keys
from sam2_ros.data.files.sequences import _masklets
from sam2_ros.data.files.video import SourceError, open_source, read_frames
from sam2_ros.model.checkpoint_files import read_state_dict
from sam2_ros.model.efficientnet_lite import EfficientNetLite
from sam2_ros.session.persistence import read_session
from sam2_ros.tracking.rules.quality import read_calibration
from sam2_ros.training.config import load_config
from sam2_ros.training.pretrained import load_imagenet_lite0
from sam2_ros.training.run_state import Run

DEADLINE_S = 60.0
ERRORS = (ValueError, OSError, SourceError)


def _frame_of_project(path: Path) -> Any:
    folder = path.parent / "recording"
    (folder / "frames").mkdir(parents=True)
    (folder / "frames" / "000000.jpg").symlink_to(path)
    (folder / "recording.json").write_text(
        '{"name": "", "kind": "images", "source": "", "size_hw": [8, 8], "frame_count": 1, "fps": null, "topic": "", '
        '"stamps_ns": [], "frame_ids": [], "source_indices": [0], "frame_names": []}'
    )
    return Recording(folder, lambda: None).frame_rgb(0)


def _index_of_weights(path: Path) -> Any:
    (path.parent / "model.safetensors.index.json").symlink_to(path)
    return read_state_dict(path.parent)


def _sources_of_photos(path: Path) -> Any:
    (path.parent / "sources.json").symlink_to(path)
    return scene_keys(PhotoFolder(str(path.parent)), ["a"])


def _coco(path: Path) -> Any:
    (path.parent / "annotations").mkdir()
    (path.parent / "annotations" / "instances.json").symlink_to(path)
    return find_sources(path.parent, 6.0)


def _model_in_folder(path: Path) -> Any:
    return ModelFile(path.parent, path.name).read(path.name)


READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoint": read_state_dict,
    "index of weights": _index_of_weights,
    "session": read_session,
    "parameter file": lambda path: read_parameter_file("params_file", str(path), ["/sam2_node"]),
    "calibration of quality": lambda path: read_calibration(path, "weights"),
    "training config": load_config,
    "run to resume": lambda path: Run.resume(SimpleNamespace(), path, torch.device("cpu")),  # type: ignore[arg-type]
    "ImageNet trunk": lambda path: load_imagenet_lite0(EfficientNetLite.__new__(EfficientNetLite), path),
    "model root": lambda path: find_models(path, 1000),
    "model in a folder": _model_in_folder,
    "list of photographs": _sources_of_photos,
    "project file": read_json,
    "frame of a project": _frame_of_project,
    "log of a project": lambda path: list(InteractionLog(path)),
    "COCO annotations": _coco,
    "video": open_source,
    "frames of a video": lambda path: read_frames(path, [0]),
    "image": read_image_rgb,
    "mask": read_index_png,
    "source to import": lambda path: find_sources(path, 6.0),
}


def outcome(read: Callable[[Path], Any], path: Path) -> BaseException | None:
    """What a reader raises; a reader that does not return fails the test."""
    found: list[BaseException | None] = []

    def run() -> None:
        try:
            read(path)
        except BaseException as error:
            found.append(error)
        else:
            found.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert found, f"it reads on after {DEADLINE_S:.0f} s"
    return found[0]


def make(kind: str, path: Path) -> None:
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["FIFO", "device", "socket"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_has_no_end_is_not_opened(
    read: Callable[[Path], Any], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    make(kind, Path("it"))
    error = outcome(read, tmp_path / "it")
    assert error is None or isinstance(error, ERRORS), f"{type(error).__name__}: {error}"
    assert error is None or "\n" not in str(error)


@pytest.mark.parametrize("read", [READERS[name] for name in READERS if name not in ("image", "mask")])
@pytest.mark.parametrize("content", [b"[" * 20_000, b"a: &a [*a, *a]\nb: *a\n", b"\xff\xfe\0" * 99, b"{}", b"[1]"])
def test_text_that_means_nothing_is_one_line(read: Callable[[Path], Any], content: bytes, tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(content)
    error = outcome(read, tmp_path / "it")
    assert error is None or isinstance(error, ERRORS), f"{type(error).__name__}: {error}"


def test_annotations_too_deep_to_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "a_manual.json").write_text("[" * 20_000)
    with pytest.raises(ValueError, match="expected an SA-V annotation"):
        _masklets(tmp_path / "a_manual.json")


def test_a_source_that_is_no_file_is_called_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "it")
    with pytest.raises(SourceError, match="it' is a device, a FIFO or a socket"):
        open_source(tmp_path / "it")
    with pytest.raises(SourceError, match="there is nothing at"):
        open_source(tmp_path / "nothing")
