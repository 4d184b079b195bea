"""The YCB-Video benchmark on a scene that is made here: a plate, a second one that has no depth."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sam2_ros.data.files.masks import write_index_png

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ycb_centroids.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("ycb_centroids", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Plate of class 2 at 1 m before the camera, 10 mm to the right of its model's middle, which is 50 mm behind."""
    scene = tmp_path / "0000"
    mask = np.zeros((120, 160), dtype=np.uint8)
    mask[40:80, 61:101], mask[:10, :10] = 2, 3
    depth = np.where(mask == 2, 10_000, 0)
    write_index_png(scene / "masks" / "000001.png", mask)
    write_index_png(scene / "depth" / "000001.png", depth)
    k = [[100.0, 0, 79.5], [0, 100.0, 59.5], [0, 0, 1]]
    pose = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1.05]]
    meta = {"000001": {"K": k, "factor_depth": 10000, "cls": [2, 3], "poses": [pose, pose]}}
    (scene / "meta.json").write_text(json.dumps(meta))
    return tmp_path


def test_the_table(script: ModuleType, root: Path) -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in script.table(root, False).splitlines()]
    heads, _, plate, unseen, everything = rows
    assert heads[0:5] == ["scene", "object", "centroid lateral", "centroid worst", "centroid offset"]
    assert plate == ["0000", "cracker_box", "10", "10", "-50", "10", "10", "-50", "1", "0"]
    assert unseen == ["0000", "sugar_box", "-", "-", "-", "-", "-", "-", "0", "1"]
    assert everything[-2:] == ["1", "1"]


def test_difference_across_and_along_the_view(script: ModuleType) -> None:
    difference = script.compare(np.array([0.63, -0.02, 0.79]), np.array([0.6, 0, 0.8]))
    # The view is (0.6, 0, 0.8): along it 0.03 * 0.6 - 0.01 * 0.8 = 0.01.
    assert difference.offset_m == pytest.approx(0.01)
    assert difference.lateral_m == pytest.approx((0.03**2 + 0.02**2 + 0.01**2 - 0.01**2) ** 0.5)


def test_a_folder_without_scenes(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected folders with a meta.json in .*, found none"):
        script.table(tmp_path, False)
