"""Tokens of clicks, boxes and their absence, and the map that a mask becomes."""

from __future__ import annotations

import pytest
import torch
from tiny_model import TINY, tiny_model

from sam2_ros.model.prompt_encoder import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    NEGATIVE,
    PAD,
    POSITIVE,
    PointPrompts,
    PromptEncoder,
)

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return tiny_model().sam_prompt_encoder


def prompts(*points: tuple[float, float, int]) -> PointPrompts:
    """x, y and label of each point of one object."""
    xy = torch.tensor([point[:2] for point in points]).view(1, -1, 2)
    return PointPrompts(xy, torch.tensor([[int(point[2]) for point in points]]))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_points_are_followed_by_one_pad_token(encoder: PromptEncoder, count: int) -> None:
    tokens = encoder(prompts(*[(3.0 * i, 4.0, POSITIVE) for i in range(count)]), None, batch=1).tokens_bnc
    assert tokens.shape == (1, count + 1, TINY.d_model)
    torch.testing.assert_close(tokens[0, -1], encoder.not_a_point_embed.weight[0])


def test_no_points_are_two_pad_tokens(encoder: PromptEncoder) -> None:
    tokens = encoder(None, None, batch=3).tokens_bnc
    assert tokens.shape == (3, 2, TINY.d_model)
    assert (tokens == encoder.not_a_point_embed.weight[0]).all()


@pytest.mark.parametrize(("label", "row"), [(NEGATIVE, 0), (POSITIVE, 1), (BOX_TOP_LEFT, 2), (BOX_BOTTOM_RIGHT, 3)])
def test_a_token_is_the_place_of_its_pixel_centre_plus_its_kind(encoder: PromptEncoder, label: int, row: int) -> None:
    token = encoder(prompts((10, 20, label)), None, batch=1).tokens_bnc[0, 0]
    place = encoder.pe_layer(torch.tensor([10.5, 20.5]) / TINY.image_size)
    torch.testing.assert_close(token, place + encoder.point_embeddings[row].weight[0])


def test_a_pad_point_has_no_place(encoder: PromptEncoder) -> None:
    tokens = encoder(prompts((10, 20, PAD), (50, 3, PAD)), None, batch=1).tokens_bnc[0]
    torch.testing.assert_close(tokens, encoder.not_a_point_embed.weight.expand(3, -1))


def test_without_a_mask_the_map_is_the_same_everywhere(encoder: PromptEncoder) -> None:
    dense = encoder(None, None, batch=2).dense_bchw
    assert dense.shape == (2, TINY.d_model, 4, 4)
    assert (dense == encoder.no_mask_embed.weight[0][:, None, None]).all()


def test_a_mask_becomes_a_map_in_which_its_place_shows(encoder: PromptEncoder) -> None:
    empty, corner = torch.full((1, 1, 16, 16), -10.0), torch.full((1, 1, 16, 16), -10.0)
    corner[..., :4, :4] = 10.0
    difference = (encoder(None, corner, 1).dense_bchw - encoder(None, empty, 1).dense_bchw).abs().sum(1)[0]
    assert difference[0, 0] > 1e-3
    difference[0, 0] = 0
    assert difference.max() < 1e-6


def test_a_click_has_the_encoding_of_the_image_features_it_lies_on(encoder: PromptEncoder) -> None:
    """Model pixel 23.5 (after the half-pixel shift 24) is the middle of the second of four tokens of 16 px."""
    click = encoder.pe_layer((torch.tensor([23.5, 39.5]) + 0.5) / TINY.image_size)
    torch.testing.assert_close(click, encoder.dense_position()[0, :, 2, 1])
