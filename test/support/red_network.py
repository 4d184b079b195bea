"""A tiny network whose masks are what is red in the image that it is given: masks can be compared pixel by pixel.

Everything else (memory, pointers, the size of the logits) is that of a network with random weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tiny_model import TINY, tiny_model
from torch import Tensor

from sam2_ros.model.prompt_encoder import PointPrompts
from sam2_ros.model.sam2 import ABSENT_LOGIT, SAM2, ImageFeatures, MaskPrediction
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.transforms import IMAGENET_MEAN, IMAGENET_STD
from sam2_ros.tracking.zoom.window import Window

RED = (255, 0, 0)
SIZE_HW = (80, 120)
LEFT, RIGHT = (30, 30, 38, 38), (90, 40, 98, 48)  # boxes x0, y0, x1, y1


@dataclass(frozen=True)
class RedFeatures(ImageFeatures):
    red_b1hw: Tensor  # 0..1, at the size of the masks

    def expand(self, batch: int) -> RedFeatures:
        shared = super().expand(batch)
        return RedFeatures(
            shared.top_bchw, shared.stride8_bchw, shared.stride4_bchw, self.red_b1hw.expand(batch, -1, -1, -1)
        )


class RedNetwork(SAM2):
    """See the module; ``points_xy`` are those of the last clicks, in 0..1 of what the network was given."""

    points_xy: NDArray[np.float32] | None = None

    def __init__(self, seed: int = 4) -> None:
        super().__init__(TINY)
        self.load_state_dict(tiny_model(seed=seed).state_dict())
        self.eval()

    def encode_image(self, images_bchw: Tensor) -> RedFeatures:
        features = super().encode_image(images_bchw)
        red_b1hw = images_bchw[:, :1] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
        return RedFeatures(features.top_bchw, features.stride8_bchw, features.stride4_bchw, F.avg_pool2d(red_b1hw, 4))

    def decode_masks(
        self,
        conditioned_bchw: Tensor,
        features: ImageFeatures,
        points: PointPrompts | None = None,
        mask_logits_b1hw: Tensor | None = None,
        multimask: bool = True,
    ) -> MaskPrediction:
        found = super().decode_masks(conditioned_bchw, features, points, mask_logits_b1hw, multimask)
        assert isinstance(features, RedFeatures)
        if points is not None:
            self.points_xy = points.xy_bn2[0].numpy() / TINY.image_size
        is_red = features.red_b1hw > 0.5
        visible_b1 = is_red.flatten(1).any(1, keepdim=True)
        logits_b1hw = torch.where(is_red, 1, -1) * (1 + found.logits_b1hw.abs().clamp(max=20))
        return replace(
            found,
            logits_b1hw=torch.where(visible_b1[:, :, None, None], logits_b1hw, ABSENT_LOGIT),
            object_score_logits_b1=torch.where(visible_b1, found.object_score_logits_b1.abs(), -20.0),
        )


def red_frame(
    *boxes: tuple[int, int, int, int], height: int = 80, width: int = 120, seed: int = 0
) -> NDArray[np.uint8]:
    """(height, width, 3): boxes x0, y0, x1, y1 in red, on green and blue noise."""
    image_rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image_rgb[..., 0] = 0
    for x0, y0, x1, y1 in boxes:
        image_rgb[y0:y1, x0:x1] = RED
    return image_rgb


def red_mask(image_rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(image_rgb[..., 0] > 127)


def moved(box: tuple[int, int, int, int], x: int, y: int = 0) -> tuple[int, int, int, int]:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def mask_of(box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    return red_mask(red_frame(box))


def zooming(network: RedNetwork, image: NDArray[np.uint8], frames: int = 12, **options: Any) -> Tracker:
    """A tracker that has followed the object in LEFT until its window is still."""
    tracker = Tracker(network, zoom=True, **options)
    tracker.add_prompt("a", mask=mask_of(LEFT))
    for _ in range(frames):
        tracker.step(image)
    return tracker


def window_of(tracker: Tracker, object_id: str = "a") -> Window | None:
    return tracker._state.tracks[object_id].window
