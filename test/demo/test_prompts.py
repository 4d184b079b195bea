"""What the demo asks for: the scene's objects, what a person typed, or the middle of the image."""

from __future__ import annotations

import pytest

from sam2_ros.data.prompt_text import PromptSpec
from sam2_ros.demo.stream import StreamSpec, make_wish

TABLETOP = StreamSpec(height_px=60, width_px=80)
VIDEO = StreamSpec(source="clip.mp4")


def test_one_click_on_each_object_of_the_scene_and_the_truth_to_judge_by() -> None:
    wish = make_wish(TABLETOP, [], (80, 60))
    assert wish.truth is not None
    assert len(wish.prompts) >= 4
    true_ids = wish.truth.ids_of(0)
    for prompt in wish.prompts:
        (x, y), name = prompt.points[0], prompt.object_id
        assert name is not None and prompt.labels == (1,) and prompt.box is None
        assert true_ids[int(y), int(x)] == wish.truth.truth_ids[name]


def test_a_source_without_a_prompt_is_clicked_in_the_middle() -> None:
    wish = make_wish(VIDEO, [], (640, 480))
    assert wish.prompts == (PromptSpec("object1", ((320.0, 240.0),), (1,), None),)
    assert wish.truth is None


def test_typed_prompts_get_names_where_they_have_none() -> None:
    wish = make_wish(VIDEO, ["10,20", "arm:1,2,30,40 5,6"], (640, 480))
    assert [p.object_id for p in wish.prompts] == ["object1", "arm", "object3"]
    assert wish.prompts[1].box == (1, 2, 30, 40)
    assert wish.truth is None


def test_typed_prompts_on_the_scene_are_not_judged() -> None:
    assert make_wish(TABLETOP, ["10,20"], (80, 60)).truth is None


def test_two_objects_of_one_name_are_rejected() -> None:
    with pytest.raises(ValueError, match="a different name for each object"):
        make_wish(VIDEO, ["arm:1,2", "arm:3,4"], (640, 480))
