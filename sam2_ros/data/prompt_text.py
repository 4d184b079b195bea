"""The syntax of prompts on the command line.

====================  ==================================================================
``320,240``           a click on the object
``320,240;350,260``   two clicks on one object
``320,240;-90,400``   a click on the object, and with a minus one that is not on it
``10,20,200,150``     a box: x0,y0,x1,y1
``10,20,200,150;-40,40``  a box and a click that excludes a part of it
``mug:320,240``       any of these with a name for the object
====================  ==================================================================

All numbers are pixels of the image, origin top left. Several prompts in one text are separated by spaces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SYNTAX = (
    'expected "x,y" (click), "x0,y0,x1,y1" (box), clicks joined by ";" with "-x,y" for what does not belong, "name:..."'
)


class PromptSyntaxError(ValueError):
    """A text that is not a prompt; the message quotes it and says what was expected."""


@dataclass(frozen=True)
class PromptSpec:
    """A prompt for one object, in pixels of the image."""

    object_id: str | None  # None if the text has no name
    points: tuple[tuple[float, float], ...]  # (x, y)
    labels: tuple[int, ...]  # one per point: 1 on the object, 0 not on it
    box: tuple[float, float, float, float] | None  # x0, y0, x1, y1


def parse_prompts(text: str) -> tuple[PromptSpec, ...]:
    """Prompts separated by spaces, at least one; see ``parse_prompt``."""
    specs = tuple(parse_prompt(part) for part in text.split())
    if not specs:
        raise PromptSyntaxError(f"empty prompt; {SYNTAX}")
    return specs


def parse_prompt(text: str) -> PromptSpec:
    """One prompt in the syntax of this module.

    >>> parse_prompt("mug:320,240;-90,400")
    PromptSpec(object_id='mug', points=((320.0, 240.0), (90.0, 400.0)), labels=(1, 0), box=None)

    Raises:
        PromptSyntaxError: the text is no prompt.
    """
    name, separator, body = text.strip().rpartition(":")
    if separator and not name.strip():
        raise PromptSyntaxError(f"prompt {text!r} has no name before the colon; {SYNTAX}")
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    box: tuple[float, float, float, float] | None = None
    for part in body.split(";"):
        negative = part.strip().startswith("-")
        numbers = _numbers(part.strip().removeprefix("-"), text)
        if len(numbers) == 2:
            points.append((numbers[0], numbers[1]))
            labels.append(0 if negative else 1)
        elif box is not None or negative:
            raise PromptSyntaxError(f"prompt {text!r}: one box at most, and a box has no minus; {SYNTAX}")
        else:
            box = _box(numbers, text)
    if box is None and 1 not in labels:
        raise PromptSyntaxError(f"prompt {text!r} says only what does not belong to the object; add a click that does")
    return PromptSpec(name.strip() or None, tuple(points), tuple(labels), box)


def names_of(specs: Sequence[PromptSpec]) -> list[str]:
    """The name of each object; unnamed ones are numbered by position: "object1", "object2", ...

    Raises:
        PromptSyntaxError: two objects have the same name.
    """
    names: list[str] = []
    for number, spec in enumerate(specs, 1):
        name = spec.object_id or f"object{number}"
        check_new(name, names)
        names.append(name)
    return names


def check_new(name: str, taken: Sequence[str]) -> None:
    """Raise PromptSyntaxError if an object has this name already."""
    if name in taken:
        raise PromptSyntaxError(f"two prompts for {name!r}; join the clicks of one object with ';', or name them apart")


def _numbers(part: str, text: str) -> list[float]:
    """Two or four numbers of 0 or more."""
    try:
        numbers = [float(number) for number in part.split(",")]
    except ValueError:
        raise PromptSyntaxError(f"cannot read {part!r} in prompt {text!r}; {SYNTAX}") from None
    if len(numbers) not in (2, 4):
        raise PromptSyntaxError(f"{part!r} in prompt {text!r} has {len(numbers)} numbers; {SYNTAX}")
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise PromptSyntaxError(f"{part!r} in prompt {text!r}: pixels are 0 or more; {SYNTAX}")
    return numbers


def _box(numbers: list[float], text: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = numbers
    if x1 <= x0 or y1 <= y0:
        raise PromptSyntaxError(
            f"box {x0:g},{y0:g},{x1:g},{y1:g} in prompt {text!r} is empty; expected x0 < x1 and y0 < y1"
        )
    return x0, y0, x1, y1
