"""Prompts as a user might give them, drawn from true masks (paper, appendix D.2.1).

Every object has a random generator of its own, so that its prompts do not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sam2_ros.model.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, POSITIVE, PointPrompts

_BOX_NOISE_SHARE, _BOX_NOISE_MAX_PX = 0.1, 20.0


def _random_pixel(weights_bhw: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """(B, h, w) non-negative weights -> (B, 2) float x, y of a pixel drawn by weight; anywhere if all are 0."""
    flat = weights_bhw.flatten(1).float().cpu()
    flat = torch.where(flat.sum(1, keepdim=True) > 0, flat, 1.0)
    index = torch.cat([torch.multinomial(row, 1, generator=g) for row, g in zip(flat, generators, strict=True)])
    width = weights_bhw.shape[2]
    xy_b2 = torch.stack((index % width, torch.div(index, width, rounding_mode="floor")), dim=1)
    return xy_b2.float().to(weights_bhw.device)


def click_prompts(masks_b1hw: Tensor, generators: Sequence[torch.Generator]) -> PointPrompts:
    """One positive click, uniform over each mask. (B, 1, H, W) masks at model size."""
    xy_b2 = _random_pixel(masks_b1hw[:, 0], generators)
    return PointPrompts(xy_b2[:, None], torch.full((xy_b2.shape[0], 1), POSITIVE, device=xy_b2.device))


def box_prompts(masks_b1hw: Tensor, generators: Sequence[torch.Generator]) -> PointPrompts:
    """The tight box of each mask with its corners moved by up to a tenth of its size, at most 20 px.

    An empty mask has the whole image as its box.
    """
    corners, noises = [], []
    for mask, generator in zip(masks_b1hw[:, 0], generators, strict=True):
        ys, xs = torch.nonzero((mask > 0.5) if mask.any() else torch.ones_like(mask), as_tuple=True)
        corners.append(torch.stack((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).float())
        noises.append(2 * torch.rand(4, generator=generator) - 1)
    box_b4 = torch.stack(corners)
    size_b2 = box_b4[:, 2:] - box_b4[:, :2]
    reach_b4 = (size_b2 * _BOX_NOISE_SHARE).clamp(max=_BOX_NOISE_MAX_PX).repeat(1, 2)
    box_b4 = (box_b4 + torch.stack(noises).to(box_b4) * reach_b4).clamp(0, masks_b1hw.shape[-1] - 1)
    labels = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], device=box_b4.device).expand(box_b4.shape[0], 2)
    return PointPrompts(box_b4.view(-1, 2, 2), labels)


def add_corrective_click(
    prompts: PointPrompts | None,
    predicted_b1hw: Tensor,
    masks_b1hw: Tensor,
    generators: Sequence[torch.Generator],
    truth_share: float = 0.0,
) -> PointPrompts:
    """One more click, uniform over the error region: positive where the mask was missed, negative where invented.

    Args:
        prompts: given so far in this frame, if any.
        predicted_b1hw: (B, 1, H, W) bool prediction at model size.
        masks_b1hw: (B, 1, H, W) truth, 0 or 1.
        generators: one an object.
        truth_share: probability that the click lies anywhere on the object instead, as users click, too.
    """
    truth = masks_b1hw[:, 0] > 0.5
    region = truth ^ predicted_b1hw[:, 0]
    for row, generator in enumerate(generators):
        if torch.rand((), generator=generator) < truth_share and truth[row].any():
            region[row] = truth[row]
    xy_b2 = _random_pixel(region, generators)
    rows = torch.arange(truth.shape[0], device=truth.device)
    is_positive = truth[rows, xy_b2[:, 1].long(), xy_b2[:, 0].long()]
    click = PointPrompts(xy_b2[:, None], torch.where(is_positive, POSITIVE, NEGATIVE)[:, None])
    if prompts is None:
        return click
    return PointPrompts(
        torch.cat((prompts.xy_bn2, click.xy_bn2), dim=1), torch.cat((prompts.labels_bn, click.labels_bn), dim=1)
    )
