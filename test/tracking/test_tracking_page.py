"""docs/tracking.md names tests that exist, and numbers that are true."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch

from sam2_ros.model.config import MODELS
from sam2_ros.model.sam2 import SAM2

FOLDER = Path(__file__).parent
PAGE = (FOLDER.parent.parent / "docs" / "tracking.md").read_text(encoding="utf-8")
MEGABYTE = 1e6


def test_the_tests_it_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    tests = {
        name for path in FOLDER.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert len(named) > 30
    assert not named - tests, "docs/tracking.md names tests that are not there"


def test_sizes_of_what_is_kept() -> None:
    sizes = []
    for name in ("nano", "sam2.1_hiera_tiny"):
        config = MODELS[name]
        side = 64  # few pixels are enough: all sizes go with their number
        with torch.device("meta"):
            features = SAM2(replace(config, image_size=side)).encode_image(torch.zeros(1, 3, side, side))
        scale = (config.image_size / side) ** 2
        frame = sum(t.nbytes for t in vars(features).values()) * scale
        memory = config.memory_dim * config.feature_size**2 * 2  # bfloat16
        model_input = 3 * config.image_size**2 * 4  # float32
        sizes.append((frame, model_input, memory, 30 * (frame + 4 * memory)))
    rows = re.findall(r"^\| (?:features|input|a spatial|30 past).* \| ([\d.]+) MB \| ([\d.]+) MB \|$", PAGE, re.M)
    assert len(rows) == 4
    for (nano, large), expected in zip(rows, zip(*sizes, strict=True), strict=True):
        for told, size in zip((nano, large), expected, strict=True):
            decimals = len(told.partition(".")[2])
            assert float(told) == round(size / MEGABYTE, decimals)
