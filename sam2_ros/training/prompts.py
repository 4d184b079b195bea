"""Prompts as a user might give them, drawn from true masks (paper, appendix D.2.1).

Every object has a random generator of its own, so that its prompts do not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sam2_ros.evaluation.prompt_sampling import center_click, correction_click
from sam2_ros.model.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, POSITIVE, PointPrompts

_BOX_NOISE_SHARE, _BOX_NOISE_MAX_PX = 0.1, 20.0


def _random_pixel(region_bhw: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """(B, h, w) bool regions -> (B, 2) float x, y of a pixel drawn from each; anywhere in the image if it is empty."""
    height, width = region_bhw.shape[1:]
    indices = []
    for region_hw, generator in zip(region_bhw, generators, strict=True):
        inside = torch.nonzero(region_hw.flatten())[:, 0]
        count = len(inside) or height * width
        draw = int(torch.randint(count, (), generator=generator))
        indices.append(int(inside[draw]) if len(inside) else draw)
    return torch.tensor([(i % width, i // width) for i in indices], dtype=torch.float32, device=region_bhw.device)


def _draw(share: float, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < share)


def click_prompts(masks_b1hw: Tensor, generators: Sequence[torch.Generator], center_share: float = 0.0) -> PointPrompts:
    """One positive click on each mask: in its middle with probability ``center_share``, else anywhere on it.

    Args:
        masks_b1hw: (B, 1, H, W) at model size, 0 or 1. Of an empty mask the click is anywhere in the image.
        generators: one an object.
        center_share: probability of the deepest point of the mask, where people and the evaluation click.
    """
    truth_bhw = masks_b1hw[:, 0] > 0.5
    xy_b2 = _random_pixel(truth_bhw, generators)
    for row, generator in enumerate(generators):
        if _draw(center_share, generator) and truth_bhw[row].any():
            click = center_click(truth_bhw[row].cpu().numpy())
            xy_b2[row] = xy_b2.new_tensor((click.x, click.y))
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
    center_share: float = 0.0,
) -> PointPrompts:
    """One more click: positive where the mask was missed, negative where it was invented.

    Args:
        prompts: given so far in this frame, if any.
        predicted_b1hw: (B, 1, H, W) bool prediction at model size.
        masks_b1hw: (B, 1, H, W) truth, 0 or 1.
        generators: one an object.
        truth_share: probability that the click lies anywhere on the object instead, as users click, too.
        center_share: probability of the deepest point of the error, where people and the evaluation click; other
            clicks are uniform over the error.
    """
    truth = masks_b1hw[:, 0] > 0.5
    predicted = predicted_b1hw[:, 0]
    region = truth ^ predicted
    centers: dict[int, tuple[float, float]] = {}
    for row, generator in enumerate(generators):
        if _draw(truth_share, generator) and truth[row].any():
            region[row] = truth[row]
        elif _draw(center_share, generator):
            click = correction_click(predicted[row].cpu().numpy(), truth[row].cpu().numpy())
            if click is not None:
                centers[row] = (click.x, click.y)
    xy_b2 = _random_pixel(region, generators)
    for row, center in centers.items():
        xy_b2[row] = xy_b2.new_tensor(center)
    rows = torch.arange(truth.shape[0], device=truth.device)
    is_positive = truth[rows, xy_b2[:, 1].long(), xy_b2[:, 0].long()]
    click_b = PointPrompts(xy_b2[:, None], torch.where(is_positive, POSITIVE, NEGATIVE)[:, None])
    if prompts is None:
        return click_b
    return PointPrompts(
        torch.cat((prompts.xy_bn2, click_b.xy_bn2), dim=1), torch.cat((prompts.labels_bn, click_b.labels_bn), dim=1)
    )
