"""``dataset create`` with what is damaged: one line each, and nothing of it in the project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2_ros.annotate.project import Project
from sam2_ros.annotate.recordings import Recording
from sam2_ros.cli import main


def create(project: Path, source: Path, status: int = 0) -> list[Recording]:
    assert main(["dataset", "create", str(project), str(source)]) == status
    if not project.exists():
        return []
    with Project.open(project) as opened:
        return list(opened.recordings)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)


def test_a_folder_without_any_readable_image_is_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.jpg").write_bytes(b"no image")
    assert create(tmp_path / "p", tmp_path / "folder", status=2) == []
    assert "no image can be read; " in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda coco: coco["annotations"][0].pop("image_id"),
        lambda coco: coco["annotations"][0].pop("segmentation"),
        lambda coco: coco["annotations"][0].update(segmentation=[["a", "b"]]),
        lambda coco: coco["annotations"][0].update(segmentation=[[0, 0, 9, float("inf"), 5, 5]]),
        lambda coco: coco["annotations"][0].update(segmentation={"size": [2, 2], "counts": "0"}),
        lambda coco: coco["annotations"][0].update(track_id="mug"),
        lambda coco: coco["images"][0].pop("file_name"),
        lambda coco: coco["images"][0].update(file_name="../../outside.jpg"),
        lambda coco: coco["images"][0].update(frame_index="first"),
        lambda coco: coco.update(videos=[{"name": "no id"}]),
        lambda coco: coco.update(annotations={"a": 1}),
    ],
)
def test_annotations_that_say_something_else_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], Any]
) -> None:
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "images").mkdir()
    cv2.imwrite(str(tmp_path / "coco" / "images" / "1.jpg"), picture())
    cv2.imwrite(str(tmp_path / "outside.jpg"), picture())
    coco: dict[str, Any] = {
        "videos": [{"id": 7, "name": "clip"}],
        "images": [{"id": 1, "video_id": 7, "file_name": "1.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "track_id": 3, "segmentation": [[4, 4, 20, 4, 20, 20]]}],
    }
    path = tmp_path / "coco" / "annotations" / "a.json"
    path.write_text(json.dumps(coco))
    (recording,) = create(tmp_path / "good", tmp_path / "coco")
    assert len(recording.masklets.all()) == 1
    change(coco)
    path.write_text(json.dumps(coco))
    assert create(tmp_path / "p", tmp_path / "coco", status=2) == []
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sam2-ros")]
    assert len(said) == 1 and str(tmp_path / "coco") in said[0]
