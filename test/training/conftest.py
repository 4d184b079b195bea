"""Photographs to train on, and a network small enough to train in a test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_model import TINY

from sam2_ros.model.config import MODELS


@pytest.fixture
def photo_root(tmp_path: Path) -> Path:
    """``photos/{images,masks}``: three noisy photographs with a disc and a box each."""
    return _with_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def shared_photo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for what outlives a test; nobody may change it."""
    return _with_photos(tmp_path_factory.mktemp("training") / "photos")


def _with_photos(root: Path) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 120, (72, 96, 3), dtype=np.uint8)
        index = np.zeros((72, 96), np.uint8)
        cv2.circle(index, (28, 36), 14, 1, -1)
        cv2.rectangle(index, (60, 16), (82, 52), 2, -1)
        image[index == 1], image[index == 2] = (250, 40, 40), (40, 250, 40)
        cv2.imwrite(str(root / "images" / f"{seed}.jpg"), image)
        cv2.imwrite(str(root / "masks" / f"{seed}.png"), index)
    return root


@pytest.fixture
def tiny_entry(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a tiny model in the table."""
    monkeypatch.setitem(MODELS, TINY.name, TINY)
    return TINY.name
