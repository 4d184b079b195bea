"""Our "segment everything" against the official one: the same random weights, image and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_image import connected_components, import_official_image, set_feature_size, varied
from synthetic_frames import synthetic_frames

from sam2_ros.evaluation.official import build_official, randomise
from sam2_ros.tracking.loading import load_network
from sam2_ros.tracking.mask_generator import AutomaticMaskGenerator, GeneratedMask, GeneratorSettings

pytestmark = pytest.mark.numeric
HEIGHT, WIDTH = 150, 200
TOLERANCE_IOU = 1e-5  # of predicted ones
MAX_ODD_PIXELS = 1  # whose logit is at the threshold to within rounding
# A random network's scores mean nothing: thresholds at which some masks stay and others go.
COMMON = {
    "points_per_side": 5,
    "pred_iou_thresh": 0.51,
    "stability_score_thresh": 0.3,
    "box_nms_thresh": 0.98,
    "mask_threshold": 18.0,  # at lower ones the masks are all alike
}
CASES: dict[str, dict[str, Any]] = {
    "grid": {},
    "small batches": {"points_per_batch": 7},
    # The single masks of a random network are alike whatever the point: here none goes for another's sake.
    "one mask a point": {"multimask_output": False, "pred_iou_thresh": 0.4, "box_nms_thresh": 1.0},
    "second look at each mask": {"points_per_side": 3, "use_m2m": True, "pred_iou_thresh": 0.4, "box_nms_thresh": 1.0},
    "no threshold on the predicted IoU": {"points_per_side": 4, "pred_iou_thresh": 0.0},
    "another offset": {"stability_score_offset": 0.5, "stability_score_thresh": 0.6},
    "crops": {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2, "crop_nms_thresh": 0.9},
    "crops with little overlap": {"points_per_side": 3, "crop_n_layers": 1, "crop_overlap_ratio": 0.1},
    "small regions": {"min_mask_region_area": 40},
}


class Networks:
    """Both networks with the same weights, and the image."""

    def __init__(self, model: str, image_size: int, height: int, width: int, folder: Path) -> None:
        self.model, self.image_size = model, image_size
        self.official = build_official(model, image_size)
        randomise(self.official, seed=7, object_score_bias=4.0)
        varied(self.official)
        torch.save({"model": self.official.state_dict()}, folder / "random.pt")
        self.ours = load_network(model, folder / "random.pt", image_size=image_size, precision="float32")
        self.image_rgb = synthetic_frames(1, height, seed=3, width_px=width)[0]

    def compare(self, settings: dict[str, Any], least: int) -> tuple[float, float]:
        """Largest difference of the predicted IoUs and smallest IoU of the masks."""
        settings = {**COMMON, **settings}
        _, generator_class = import_official_image()
        official = generator_class(self.official, **settings)
        set_feature_size(official.predictor, self.image_size)
        expected = official.generate(self.image_rgb)
        found = AutomaticMaskGenerator(self.ours, GeneratorSettings(**settings)).generate(self.image_rgb)
        assert len(expected) >= least, f"only {len(expected)} masks passed: nothing is shown by that"
        assert len(found) == len(expected)
        pairs = list(zip(found, expected, strict=True))
        for ours, theirs in pairs:
            assert_same(ours, theirs)
        whole = (0, 0, *self.image_rgb.shape[1::-1])
        assert any(ours.crop_xyxy != whole for ours in found) == ("crop_n_layers" in settings), "no crop gave a mask"
        return (
            max(abs(ours.predicted_iou - theirs["predicted_iou"]) for ours, theirs in pairs),
            min(iou(ours.mask, theirs["segmentation"]) for ours, theirs in pairs),
        )


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def assert_same(ours: GeneratedMask, theirs: dict[str, Any]) -> None:
    odd = int((ours.mask != theirs["segmentation"]).sum())
    assert odd <= MAX_ODD_PIXELS, f"{odd} pixels differ of {theirs['area']}"
    assert ours.predicted_iou == pytest.approx(theirs["predicted_iou"], abs=TOLERANCE_IOU)
    assert ours.stability_score == pytest.approx(theirs["stability_score"], abs=2 * MAX_ODD_PIXELS / theirs["area"])
    assert ours.point_xy == pytest.approx(theirs["point_coords"][0])
    x0, y0, x1, y1 = ours.crop_xyxy
    assert (x0, y0, x1 - x0, y1 - y0) == tuple(theirs["crop_box"])
    if odd == 0:
        x0, y0, x1, y1 = ours.box_xyxy
        assert (x0, y0, x1 - 1 - x0, y1 - 1 - y0) == tuple(theirs["bbox"])  # theirs ends at the last pixel
        assert ours.area_px == theirs["area"]


# Generating does not ask which version the network is of.
VERSIONS = ["sam2.1_hiera_tiny", pytest.param("sam2_hiera_tiny", marks=pytest.mark.long)]


@pytest.fixture(scope="module", params=VERSIONS, ids=["2.1", "2.0"])
def networks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return Networks(request.param, 256, HEIGHT, WIDTH, tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def _connected_components(monkeypatch: pytest.MonkeyPatch) -> None:
    import_official_image()
    monkeypatch.setattr("sam2.utils.misc.get_connected_components", connected_components)


@pytest.mark.parametrize("case", CASES)
def test_the_same_masks_in_the_same_order(networks: Networks, case: str, add_row: Callable[..., None]) -> None:
    worst, smallest = networks.compare(CASES[case], least=4)
    add_row(f"everything: {case}", networks.model, networks.image_size, True, worst, smallest)


def test_every_setting_is_in_a_case() -> None:
    used = set().union(COMMON, *CASES.values())
    assert used == set(GeneratorSettings.__dataclass_fields__)


@pytest.mark.long
def test_full_size(tmp_path: Path, add_row: Callable[..., None]) -> None:
    networks = Networks("sam2.1_hiera_tiny", 1024, 360, 480, tmp_path)
    worst, smallest = networks.compare({}, least=4)
    add_row("everything: grid", networks.model, networks.image_size, True, worst, smallest)
