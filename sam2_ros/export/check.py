"""The exported graphs against the network they came from, over a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_ros.export.onnx_network import OnnxNetwork
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.tracker import Tracker

_SIZE_PX = (240, 320)
_CORRECTED_FRAME = 5


@dataclass(frozen=True)
class Agreement:
    """How closely the graphs agree with PyTorch."""

    worst_logit: float  # largest difference of a mask logit
    min_iou: float  # of an object's masks in a frame

    @property
    def is_good(self) -> bool:
        """Rounding shifts outlines slightly, more so because memory feeds it back; an error moves whole masks."""
        return self.min_iou >= 0.95


def check_export(
    model: SAM2, folder: Path, num_frames: int = 24, progress: Callable[[str], None] = lambda _: None
) -> Agreement:
    """Track two objects through moving noise with PyTorch and with the graphs, and compare.

    One object starts from a box and is corrected by a click, the other starts from a mask.

    Args:
        model: the network that was exported.
        folder: written by ``export_onnx``.
        num_frames: more than the memory holds, to fill it.
        progress: called with a description of each step.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """
    try:
        graphs = OnnxNetwork(model, folder)
    except ImportError as error:
        raise ImportError("the check needs ONNX Runtime: pip install onnxruntime, or --check-frames 0") from error
    trackers = [Tracker(network, memory_selection="recent") for network in (model, graphs)]  # docs/export.md
    picture = np.random.default_rng(0).integers(0, 256, (_SIZE_PX[0] // 8, _SIZE_PX[1] // 8, 3), np.uint8)
    picture = picture.repeat(8, axis=0).repeat(8, axis=1)
    y, x = np.ogrid[: _SIZE_PX[0], : _SIZE_PX[1]]
    disc = (x - 240) ** 2 + (y - 120) ** 2 < 50**2
    worst_logit, min_iou = 0.0, 1.0
    for index in range(num_frames):
        progress(f"frame {index + 1}/{num_frames} with ONNX Runtime")
        image = np.roll(picture, 3 * index, axis=1)
        for tracker in trackers:
            if index == 0:
                tracker.add_prompt("thing", box=(80, 60, 200, 180))
                tracker.add_prompt("other", mask=disc)
            elif index == _CORRECTED_FRAME:
                tracker.add_prompt("thing", points=[(160, 120)], labels=[1])
        for expected, actual in zip(*(tracker.step(image) for tracker in trackers), strict=True):
            assert expected.low_res_logits is not None and actual.low_res_logits is not None
            worst_logit = max(worst_logit, float(np.abs(expected.low_res_logits - actual.low_res_logits).max()))
            union = np.count_nonzero(expected.mask | actual.mask)
            if union:
                min_iou = min(min_iou, np.count_nonzero(expected.mask & actual.mask) / union)
    return Agreement(worst_logit, min_iou)
