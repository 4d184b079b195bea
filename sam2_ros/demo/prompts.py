"""What the demo asks to be tracked, without ROS: a click or a box for each object, and what is true of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.prompt_text import PromptSpec, parse_prompts
from sam2_ros.demo.stream import StreamSpec, build_tabletop


@dataclass(frozen=True)
class Truth:
    """What is known of a rendered stream."""

    ids_of: Callable[[int], NDArray[np.uint8]]  # frame number -> (H, W) instance ids
    truth_ids: dict[str, int]  # object id -> its value there


@dataclass(frozen=True)
class Wish:
    """What to prompt, and how to judge what comes; ``truth`` is None where nobody knows it."""

    prompts: tuple[PromptSpec, ...]  # each with an object id
    truth: Truth | None


def make_wish(spec: StreamSpec, texts: Sequence[str], size_wh: tuple[int, int]) -> Wish:
    """One click on each object of the rendered tabletop; else what ``texts`` say; else one click on the image's middle.

    Args:
        spec: what the camera shows.
        texts: prompts as a person writes them, see ``sam2_ros.data.prompt_text``; each is an object.
        size_wh: the camera image's width and height.

    Raises:
        ValueError: a text that is no prompt, or two objects of one name.
    """
    if texts:
        return Wish(_from_texts(texts), None)
    if not spec.rendered:
        return Wish((_click("object1", size_wh[0] / 2, size_wh[1] / 2),), None)
    scene = build_tabletop(spec)
    clicks = scene.click_points(0)
    truth_ids = {click.name: scene.names.index(click.name) + 1 for click in clicks}
    prompts = tuple(_click(click.name, click.x_px, click.y_px) for click in clicks)
    return Wish(prompts, Truth(scene.render_ids, truth_ids))


def _click(object_id: str, x_px: float, y_px: float) -> PromptSpec:
    return PromptSpec(object_id, ((x_px, y_px),), (1,), None)


def _from_texts(texts: Sequence[str]) -> tuple[PromptSpec, ...]:
    specs = [spec for text in texts for spec in parse_prompts(text)]
    named = [replace(spec, object_id=spec.object_id or f"object{i}") for i, spec in enumerate(specs, start=1)]
    if len({spec.object_id for spec in named}) < len(named):
        raise ValueError(f"expected a different name for each object, got {', '.join(str(s.object_id) for s in named)}")
    return tuple(named)
