"""Simulated prompts lie where a user would put them."""

from __future__ import annotations

import pytest
import torch

from sam2_ros.training.prompts import add_corrective_click, box_prompts, click_prompts

SIZE = 32
DRAWS = 60


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rectangles(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """(B, 1, SIZE, SIZE) masks of boxes x0, y0, x1, y1, ends exclusive."""
    masks = torch.zeros(len(boxes), 1, SIZE, SIZE)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[0, y0:y1, x0:x1] = 1
    return masks


def test_click_is_anywhere_on_its_own_object(generator: torch.Generator) -> None:
    masks = rectangles((2, 20, 6, 22), (10, 3, 11, 30))
    clicked = torch.zeros_like(masks)
    for _ in range(DRAWS):
        points = click_prompts(masks, generator)
        assert points.labels_bn.tolist() == [[1], [1]]
        for row, (x, y) in enumerate(points.xy_bn2[:, 0].long().tolist()):
            clicked[row, 0, y, x] = 1
    assert (clicked <= masks).all()
    assert clicked[0].sum() == 8, "all of eight pixels should have been clicked"


def test_click_for_an_object_that_is_nowhere_is_inside_the_image(generator: torch.Generator) -> None:
    points = click_prompts(torch.zeros(1, 1, SIZE, SIZE), generator)
    assert ((points.xy_bn2 >= 0) & (points.xy_bn2 < SIZE)).all()


def test_box_is_tight_up_to_a_tenth_of_its_size(generator: torch.Generator) -> None:
    masks = rectangles((5, 10, 25, 20))
    tight, reach = torch.tensor([5.0, 10, 25, 20]), torch.tensor([2.0, 1, 2, 1])
    boxes = torch.stack([box_prompts(masks, generator).xy_bn2.flatten() for _ in range(DRAWS)])
    assert ((boxes - tight).abs() <= reach).all()
    assert (boxes - tight).abs().amax(0).gt(reach / 2).all(), "noise should use its range"
    assert box_prompts(masks, generator).labels_bn.tolist() == [[2, 3]]


def test_box_noise_is_at_most_20_px(generator: torch.Generator) -> None:
    mask = torch.zeros(1, 1, 600, 600)
    mask[..., 100:500, 100:500] = 1
    corners = torch.stack([box_prompts(mask, generator).xy_bn2[0] for _ in range(DRAWS)])
    assert (corners - torch.tensor([[100.0, 100], [500, 500]])).abs().max() <= 20


def test_box_stays_inside_the_image(generator: torch.Generator) -> None:
    for _ in range(DRAWS):
        box = box_prompts(rectangles((0, 0, SIZE, SIZE)), generator).xy_bn2
        assert ((box >= 0) & (box <= SIZE - 1)).all()


def test_box_of_an_empty_mask_is_the_image(generator: torch.Generator) -> None:
    box = box_prompts(torch.zeros(1, 1, SIZE, SIZE), generator).xy_bn2.flatten()
    assert (box[:2] < 4).all()
    assert (box[2:] > SIZE - 5).all()


def test_corrective_clicks_lie_in_the_error_and_have_its_label(generator: torch.Generator) -> None:
    truth = rectangles((4, 4, 12, 12), (4, 4, 12, 12))
    predicted = rectangles((8, 4, 16, 12), (4, 4, 12, 20)) > 0.5
    first = click_prompts(truth, generator)
    missed, invented = 0, 0
    for _ in range(DRAWS):
        points = add_corrective_click(first, predicted, truth, generator)
        assert torch.equal(points.xy_bn2[:, :1], first.xy_bn2)
        assert torch.equal(points.labels_bn[:, :1], first.labels_bn)
        for row, ((x, y), label) in enumerate(
            zip(points.xy_bn2[:, 1].long().tolist(), points.labels_bn[:, 1].tolist(), strict=True)
        ):
            is_object, was_found = bool(truth[row, 0, y, x]), bool(predicted[row, 0, y, x])
            assert is_object != was_found
            assert label == int(is_object)
            missed, invented = missed + int(is_object), invented + int(was_found)
    assert min(missed, invented) > 10, "both kinds of error should have been clicked"


def test_without_an_error_the_click_still_has_the_right_label(generator: torch.Generator) -> None:
    truth = rectangles((4, 4, 20, 20))
    for _ in range(DRAWS):
        points = add_corrective_click(click_prompts(truth, generator), truth > 0.5, truth, generator)
        x, y = points.xy_bn2[0, 1].long().tolist()
        assert points.labels_bn[0, 1] == truth[0, 0, y, x]


def test_same_seed_gives_the_same_prompts() -> None:
    masks = rectangles((4, 4, 20, 20))
    one, other = (box_prompts(masks, torch.Generator().manual_seed(3)).xy_bn2 for _ in range(2))
    assert torch.equal(one, other)
