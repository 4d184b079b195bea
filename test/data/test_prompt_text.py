"""Prompts typed on a command line."""

from __future__ import annotations

import pytest

from sam2_ros.data.prompt_text import PromptSpec, PromptSyntaxError, names_of, parse_prompt, parse_prompts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("320,240", PromptSpec(None, ((320.0, 240.0),), (1,), None)),
        ("0,0", PromptSpec(None, ((0.0, 0.0),), (1,), None)),
        (" 1.5 , 2 ", PromptSpec(None, ((1.5, 2.0),), (1,), None)),
        ("1,2;3,4;-5,6;-0,0", PromptSpec(None, ((1, 2), (3, 4), (5, 6), (0, 0)), (1, 1, 0, 0), None)),
        ("-5,6;1,2", PromptSpec(None, ((5, 6), (1, 2)), (0, 1), None)),
        ("10,20,200,150", PromptSpec(None, (), (), (10, 20, 200, 150))),
        ("10,20,200,150;-40,50", PromptSpec(None, ((40, 50),), (0,), (10, 20, 200, 150))),
        ("mug:1,2", PromptSpec("mug", ((1, 2),), (1,), None)),
        ("left arm:1,2,3,4", PromptSpec("left arm", (), (), (1, 2, 3, 4))),
        ("cup:2:1,2", PromptSpec("cup:2", ((1, 2),), (1,), None)),
    ],
)
def test_prompts_that_are_understood(text: str, expected: PromptSpec) -> None:
    assert parse_prompt(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot read ''"),
        ("1", "1 numbers"),
        ("1,2,3", "3 numbers"),
        ("a,b", "cannot read 'a,b'"),
        ("1,2;", "cannot read ''"),
        ("nan,2", "0 or more"),
        ("inf,2", "0 or more"),
        ("1,-2", "0 or more"),
        ("--1,2", "0 or more"),
        ("5,5,5,9", "is empty"),
        ("9,5,5,9", "is empty"),
        ("1,2,3,4;5,6,7,8", "one box at most"),
        ("-1,2,3,4", "a box has no minus"),
        ("-1,2", "only what does not belong"),
        (":1,2", "no name"),
        ("mug:", "cannot read ''"),
    ],
)
def test_prompts_that_are_rejected_are_quoted(text: str, why: str) -> None:
    with pytest.raises(PromptSyntaxError, match=why) as error:
        parse_prompt(text)
    assert repr(text) in str(error.value)


def test_several_prompts_in_one_text() -> None:
    first, second = parse_prompts("mug:1,2  3,4,5,6")
    assert (first.object_id, second.object_id, second.box) == ("mug", None, (3, 4, 5, 6))
    with pytest.raises(PromptSyntaxError, match="empty prompt"):
        parse_prompts("  ")


def test_objects_are_named_by_position_and_no_two_alike() -> None:
    specs = [parse_prompt(text) for text in ("1,1", "mug:2,2", "3,3")]
    assert names_of(specs) == ["object1", "mug", "object3"]
    with pytest.raises(PromptSyntaxError, match="two prompts for 'object1'"):
        names_of([parse_prompt("1,1"), parse_prompt("object1:2,2")])
