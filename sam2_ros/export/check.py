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
    """How near the graphs come to PyTorch."""

    worst_logit: float  # largest difference of a mask logit
    min_iou: float  # of the masks in a frame


def check_export(
    model: SAM2, folder: Path, num_frames: int = 24, progress: Callable[[str], None] = lambda _: None
) -> Agreement:
    """Follow a thing through moving noise with both: from a box, with a click in between.

    Args:
        model: the network that was exported.
        folder: where ``export_onnx`` has written.
        num_frames: more than the memory holds, to see it full.
        progress: is told what is being done.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """
    try:
        graphs = OnnxNetwork(model, folder)
    except ImportError as error:
        raise ImportError("the check needs ONNX Runtime: pip install onnxruntime, or --check-frames 0") from error
    trackers = [Tracker(network) for network in (model, graphs)]
    picture = np.random.default_rng(0).integers(0, 256, (_SIZE_PX[0] // 8, _SIZE_PX[1] // 8, 3), np.uint8)
    picture = picture.repeat(8, axis=0).repeat(8, axis=1)
    worst_logit, min_iou = 0.0, 1.0
    for index in range(num_frames):
        progress(f"frame {index + 1}/{num_frames} with ONNX Runtime")
        image = np.roll(picture, 3 * index, axis=1)
        for tracker in trackers:
            if index == 0:
                tracker.add_prompt("thing", box=(80, 60, 200, 180))
            elif index == _CORRECTED_FRAME:
                tracker.add_prompt("thing", points=[(160, 120)], labels=[1])
        expected, actual = (tracker.step(image)["thing"] for tracker in trackers)
        assert expected.low_res_logits is not None and actual.low_res_logits is not None
        worst_logit = max(worst_logit, float(np.abs(expected.low_res_logits - actual.low_res_logits).max()))
        union = np.count_nonzero(expected.mask | actual.mask)
        if union:
            min_iou = min(min_iou, np.count_nonzero(expected.mask & actual.mask) / union)
    return Agreement(worst_logit, min_iou)
