"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from sam2_ros.model.prompt_encoder import PointPrompts
from sam2_ros.training.losses import Losses, dice_per_mask, focal_per_mask, iou_of_masks, mask_losses

pytestmark = pytest.mark.numeric

LOG3 = math.log(3.0)  # a logit whose probability is 3/4
HALF, SURE = 0.0, 20.0


def row(*values: float) -> torch.Tensor:
    """(1, 1, N)"""
    return torch.tensor([[list(values)]])


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        (row(HALF), row(1.0), 0.4 * 0.25 * math.log(2)),
        (row(HALF), row(0.0), 0.6 * 0.25 * math.log(2)),
        (row(LOG3), row(1.0), 0.4 * (1 / 16) * math.log(4 / 3)),
        (row(LOG3), row(0.0), 0.6 * (9 / 16) * math.log(4)),
        (row(HALF, LOG3), row(1.0, 1.0), (0.1 * math.log(2) + 0.025 * math.log(4 / 3)) / 2),
    ],
)
def test_focal(logits: torch.Tensor, target: torch.Tensor, expected: float) -> None:
    assert float(focal_per_mask(logits, target)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        (row(SURE, SURE, -SURE, -SURE), row(1.0, 0.0, 1.0, 0.0), 1 - 3 / 5),
        (row(SURE, -SURE), row(1.0, 0.0), 0.0),
        (row(-SURE, -SURE), row(0.0, 0.0), 0.0),
        (row(HALF, HALF), row(1.0, 0.0), 1 - 2 / 2.5),
        (row(HALF, HALF), row(0.5, 0.5), 0.0),
    ],
)
def test_dice(logits: torch.Tensor, target: torch.Tensor, expected: float) -> None:
    assert float(dice_per_mask(logits, target)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        (row(1, 1, -1, -1), row(1, 0, 1, 0), 1 / 3),
        (row(1, -1), row(1, 0), 1.0),
        (row(1, 1, -1), row(1, 0.5, 0.49), 1.0),  # a pixel that is half covered is part of the object
        (row(-1, -1), row(0, 0), 1.0),
        (row(-1, -1), row(0, 1), 0.0),
        (row(1, -1), row(0, 0), 0.0),
    ],
)
def test_iou(logits: torch.Tensor, target: torch.Tensor, expected: float) -> None:
    assert float(iou_of_masks(logits, target)) == pytest.approx(expected, rel=1e-5)


def test_iou_of_an_object_of_thin_parts_counts_them() -> None:
    assert float(iou_of_masks(row(1, 1, -1, -1), row(0.3, 0.2, 0.0, 0.0))) == pytest.approx(1)
    assert float(iou_of_masks(row(-1, -1, -1, -1), row(0.3, 0.2, 0.0, 0.0))) == pytest.approx(0)


@pytest.mark.parametrize("loss", [focal_per_mask, dice_per_mask])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_soft_target_is_learned_best_by_its_own_probability(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], share: float
) -> None:
    """A hard mask in its place would move edges and swell thin parts."""
    probabilities = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    values = [float(loss(row(float(p.logit())).expand(1, 1, 8), row(share).expand(1, 1, 8))) for p in probabilities]
    assert float(probabilities[values.index(min(values))]) == pytest.approx(share)


def test_total_weighs_20_1_1_1_a_half_and_frames_add_up() -> None:
    one = Losses(*(torch.tensor(value) for value in (0.5, 2.0, 3.0, 4.0, 8.0)))
    assert float(one.total) == pytest.approx(20 * 0.5 + 2 + 3 + 4 + 4)
    assert float((one + one).total) == pytest.approx(2 * 23)


TARGET = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(1, 1, 2, 2)
GOOD, BAD = (20 * TARGET - 10), -(20 * TARGET - 10)


def losses(
    candidates: list[torch.Tensor],
    ious: list[float],
    score: float,
    target: torch.Tensor = TARGET,
    points: PointPrompts | None = None,
) -> Losses:
    """With points in a picture of 8 x 8 px, of which each candidate has 2 x 2 and knows 4 x 4."""
    present = target.flatten(1).any(1)
    return mask_losses(
        torch.cat(candidates, dim=1), torch.tensor([ious]), torch.tensor([[score]]), target, present, points, 8
    )


def clicks(*xy_label: tuple[float, float, int]) -> PointPrompts:
    return PointPrompts(
        torch.tensor([[(x, y) for x, y, _ in xy_label]]), torch.tensor([[label for _, _, label in xy_label]])
    )


def test_of_three_candidates_only_the_best_is_taught_its_mask() -> None:
    candidates = [BAD.clone().requires_grad_(), GOOD.clone().requires_grad_(), BAD.clone().requires_grad_()]
    result = losses(candidates, [0.5, 0.5, 0.5], 5.0)
    assert float(result.focal.detach()) == pytest.approx(0, abs=1e-6)
    assert float(result.dice.detach()) == pytest.approx(0, abs=1e-3)
    (result.focal + result.dice).backward()
    gradients = [float(c.grad.abs().sum()) for c in candidates if c.grad is not None]
    assert gradients[0] == gradients[2] == 0
    assert gradients[1] > 0


def test_every_candidate_is_taught_its_iou() -> None:
    """True values are 0, 1, 0; cross-entropy of the predictions 0.5, 0.9 and 0.1."""
    expected = -(math.log(0.5) + math.log(0.9) + math.log(0.9)) / 3
    assert float(losses([BAD, GOOD, BAD], [0.5, 0.9, 0.1], 5.0).iou) == pytest.approx(expected, abs=1e-4)


def test_iou_loss_is_least_at_the_true_value() -> None:
    half_right = torch.tensor([[10.0, 10.0], [10.0, 10.0]]).view(1, 1, 2, 2)  # IoU 1/2
    values = [float(losses([half_right], [iou], 5.0).iou) for iou in (0.3, 0.45, 0.5, 0.55, 0.7)]
    assert values == sorted(values[:3], reverse=True) + sorted(values[3:])


def test_predicted_iou_of_exactly_0_or_1_stays_finite() -> None:
    assert math.isfinite(float(losses([GOOD, BAD], [0.0, 1.0], 5.0).iou))


def test_absent_object_teaches_its_presence_only() -> None:
    candidates = torch.randn(1, 3, 2, 2, requires_grad=True)
    ious = torch.full((1, 3), 0.5, requires_grad=True)
    score = torch.tensor([[LOG3]], requires_grad=True)
    result = mask_losses(candidates, ious, score, torch.zeros(1, 1, 2, 2), torch.tensor([False]))
    assert float(result.presence.detach()) == pytest.approx(math.log(4), rel=1e-5)
    assert [float(x.detach()) for x in (result.focal, result.dice, result.iou)] == [0, 0, 0]
    result.total.backward()
    assert candidates.grad is not None
    assert candidates.grad.abs().sum() == 0
    assert ious.grad is not None
    assert ious.grad.abs().sum() == 0
    assert float(score.grad) == pytest.approx(0.75, rel=1e-5)  # type: ignore[arg-type]


def test_losses_are_means_over_objects_of_which_absent_ones_count() -> None:
    targets = torch.cat((TARGET, torch.zeros_like(TARGET)))
    present = torch.tensor([True, False])
    both = mask_losses(torch.cat((BAD, BAD)), torch.full((2, 1), 0.5), torch.zeros(2, 1), targets, present)
    alone = losses([BAD], [0.5], 0.0)
    assert float(both.dice) == pytest.approx(float(alone.dice) / 2, rel=1e-5)
    assert float(both.presence) == pytest.approx(math.log(2), rel=1e-5)


def test_masks_are_compared_at_the_size_of_the_target() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    small = torch.tensor([[10.0, -10.0], [10.0, -10.0]]).view(1, 1, 2, 2)
    assert float(losses([small], [1.0], 5.0, target).iou) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("click", "expected"),
    [
        pytest.param((1.5, 3.5, 1), math.log1p(math.exp(-10)), id="positive, inside the mask"),
        pytest.param((6.5, 3.5, 0), math.log1p(math.exp(-10)), id="negative, outside"),
        pytest.param((6.5, 3.5, 1), 10, id="positive, outside"),
        pytest.param((1.5, 3.5, 0), 10, id="negative, inside"),
        pytest.param((1.5, 3.5, 2), 0, id="corner of a box: no statement about that pixel"),
        pytest.param((1.5, 3.5, -1), 0, id="padding"),
    ],
)
def test_mask_is_taught_to_obey_its_clicks(click: tuple[float, float, int], expected: float) -> None:
    assert float(losses([GOOD], [1.0], 5.0, points=clicks(click)).click) == pytest.approx(expected, abs=1e-4)


def test_clicks_share_their_weight_and_every_candidate_obeys() -> None:
    both = losses([GOOD, BAD], [1.0, 0.0], 5.0, points=clicks((1.5, 3.5, 1), (6.5, 3.5, 0), (1.5, 3.5, -1)))
    assert float(both.click) == pytest.approx(5, abs=1e-3)
    assert float(losses([GOOD], [1.0], 5.0).click) == 0


def test_click_for_an_absent_object_teaches_nothing() -> None:
    assert float(losses([BAD], [0.5], 5.0, torch.zeros(1, 1, 2, 2), clicks((1.5, 3.5, 1))).click) == 0
