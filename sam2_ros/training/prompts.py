"""Prompts as a user might give them, drawn from true masks (paper, appendix D.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from sam2_ros.model.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, POSITIVE, PointPrompts

_BOX_NOISE_SHARE, _BOX_NOISE_MAX_PX = 0.1, 20.0


def _random_pixel(weights_bhw: Tensor, generator: torch.Generator) -> Tensor:
    """(B, h, w) non-negative weights -> (B, 2) float x, y of a pixel drawn by weight; anywhere if all are 0."""
    flat = weights_bhw.flatten(1).float()
    flat = torch.where(flat.sum(1, keepdim=True) > 0, flat, 1.0)
    index = torch.multinomial(flat, 1, generator=generator)[:, 0]
    width = weights_bhw.shape[2]
    return torch.stack((index % width, torch.div(index, width, rounding_mode="floor")), dim=1).float()


def click_prompts(masks_b1hw: Tensor, generator: torch.Generator) -> PointPrompts:
    """One positive click, uniform over each mask. (B, 1, H, W) masks at model size."""
    xy_b2 = _random_pixel(masks_b1hw[:, 0], generator)
    return PointPrompts(xy_b2[:, None], torch.full((xy_b2.shape[0], 1), POSITIVE))


def box_prompts(masks_b1hw: Tensor, generator: torch.Generator) -> PointPrompts:
    """The tight box of each mask with its corners moved by up to a tenth of its size, at most 20 px.

    An empty mask has the whole image as its box.
    """
    corners = []
    for mask in masks_b1hw[:, 0]:
        ys, xs = torch.nonzero((mask > 0.5) if mask.any() else torch.ones_like(mask), as_tuple=True)
        corners.append(torch.stack((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).float())
    box_b4 = torch.stack(corners)
    size_b2 = box_b4[:, 2:] - box_b4[:, :2]
    reach_b4 = (size_b2 * _BOX_NOISE_SHARE).clamp(max=_BOX_NOISE_MAX_PX).repeat(1, 2)
    noise = 2 * torch.rand(box_b4.shape, generator=generator) - 1
    box_b4 = (box_b4 + noise * reach_b4).clamp(0, masks_b1hw.shape[-1] - 1)
    labels = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]).expand(box_b4.shape[0], 2)
    return PointPrompts(box_b4.view(-1, 2, 2), labels)


def add_corrective_click(
    prompts: PointPrompts, predicted_b1hw: Tensor, masks_b1hw: Tensor, generator: torch.Generator
) -> PointPrompts:
    """One more click, uniform over the error region: positive where the mask was missed, negative where invented.

    Args:
        prompts: given so far.
        predicted_b1hw: (B, 1, H, W) bool prediction at model size.
        masks_b1hw: (B, 1, H, W) truth, 0 or 1.
    """
    truth = masks_b1hw[:, 0] > 0.5
    error = truth ^ predicted_b1hw[:, 0]
    xy_b2 = _random_pixel(error, generator)
    rows = torch.arange(truth.shape[0])
    is_positive = truth[rows, xy_b2[:, 1].long(), xy_b2[:, 0].long()]
    label_b = torch.where(is_positive, POSITIVE, NEGATIVE)
    return PointPrompts(
        torch.cat((prompts.xy_bn2, xy_b2[:, None]), dim=1), torch.cat((prompts.labels_bn, label_b[:, None]), dim=1)
    )
