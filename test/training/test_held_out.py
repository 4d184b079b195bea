"""Photographs kept for evaluation: the same ones always, never trained on, all exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_ros.data.clips.photos import PhotoLibrary
from sam2_ros.data.files.photo_folders import PhotoFolder, is_held_out, list_photos
from sam2_ros.training.config import Stage, TrainConfig
from sam2_ros.training.held_out import export_held_out

EVERY = 10


@pytest.fixture
def numbered_root(photo_root: Path) -> Path:
    """Three photographs, of which the one of number 7 is held out."""
    for kind in ("images", "masks"):
        for path in list((photo_root / kind).iterdir()):
            path.rename(path.with_stem(f"{7 + int(path.stem):012d}"))
    return photo_root


def config_for(*roots: Path, every: int = EVERY) -> TrainConfig:
    stage = Stage(steps=1, size_px=64, frames=1, clips_per_batch=1, lr=1e-3, lr_end=0.0)
    return TrainConfig("nano", (stage,), tuple(PhotoFolder(str(root), held_out_every=every) for root in roots))


def test_held_out_and_trained_on_are_all_photographs(numbered_root: Path, tmp_path: Path) -> None:
    stems = {photo.name for photo in list_photos(numbered_root)}
    held_out = {stem for stem in stems if is_held_out(stem, EVERY)}
    assert 0 < len(held_out) < len(stems)
    assert len(PhotoLibrary.from_folders([PhotoFolder(str(numbered_root), held_out_every=EVERY)])) == len(stems) - len(
        held_out
    )
    assert export_held_out(config_for(numbered_root), tmp_path / "eval") == len(held_out)
    for kind in ("images", "masks"):
        exported = sorted((tmp_path / "eval" / kind).iterdir())
        assert {path.stem for path in exported} == held_out
        assert all(path.read_bytes() == (numbered_root / kind / path.name).read_bytes() for path in exported)
    assert export_held_out(config_for(numbered_root), tmp_path / "eval") == len(held_out), "once more is fine"


def test_nothing_held_out_is_said(numbered_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photograph is held out; expected held_out_every"):
        export_held_out(config_for(numbered_root, every=0), tmp_path)


def test_names_that_come_twice_are_rejected(numbered_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name of its own, got twice"):
        export_held_out(config_for(numbered_root, numbered_root), tmp_path)
