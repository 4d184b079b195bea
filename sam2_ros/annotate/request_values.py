"""Values that a page sends, checked: each error is one line that says what was expected and what came."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from starlette.requests import Request

from sam2_ros.annotate.masklets import FramePrompt, ProjectError
from sam2_ros.data.files.masks import Rle

MAX_BODY_BYTES = 32 * 2**20  # a painted mask as a list of runs; more than any image has
MAX_TEXT = 500  # letters of a name, a class or a note


class TooLargeError(ProjectError):
    """A body of more than ``MAX_BODY_BYTES``."""


class Fields:
    """The fields of a JSON object.

    >>> Fields({"frame": 3}).integer("frame")
    3
    """

    def __init__(self, values: Any, known: Collection[str] = ()) -> None:
        """``known``: the fields that there may be; empty: any.

        Raises:
            ProjectError: no object, or another field.
        """
        if not isinstance(values, dict):
            raise ProjectError(f"expected a JSON object, got {_short(values)}")
        unknown = sorted(set(values) - set(known)) if known else []
        if unknown:
            raise ProjectError(f"expected only the fields {', '.join(known)}, got {_short(unknown[0])}")
        self._values: Mapping[str, Any] = values

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; ``default`` where the field is missing or null, if there is a default."""
        value = self._values.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**53:
            raise ProjectError(f"{name}: expected a whole number, got {_short(self._values.get(name))}")
        return value

    def boolean(self, name: str, default: bool | None = None) -> bool:
        """True or false; ``default`` as for ``integer``."""
        value = self._values.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise ProjectError(f"{name}: expected true or false, got {_short(self._values.get(name))}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A text of at most ``MAX_TEXT`` letters, without blanks around it; ``default`` as for ``integer``."""
        value = self._values.get(name)
        value = default if value is None else value
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
            raise ProjectError(
                f"{name}: expected one line of at most {MAX_TEXT} letters, got {_short(self._values.get(name))}"
            )
        return value.strip()

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._values.get(name)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ProjectError(f"{name}: expected a list of texts, got {_short(value)}")
        return tuple(value)

    def color(self, name: str) -> tuple[int, int, int]:
        """ "#rrggbb" as red, green, blue."""
        value = self._values.get(name)
        if not isinstance(value, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
            raise ProjectError(f'{name}: expected a colour such as "#4080ff", got {_short(value)}')
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)

    def share(self, name: str) -> float | None:
        """A number between 0 and 1, or None where the field is missing or null."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise ProjectError(f"{name}: expected a number between 0 and 1, got {_short(value)}")
        return float(value)

    def prompt(self) -> FramePrompt:
        """The fields "points" with "labels", and "box", in pixels."""
        points = self._values.get("points") or []
        labels, box = self._values.get("labels") or [], self._values.get("box")
        if not isinstance(points, list) or not all(_are_numbers(each, 2) for each in points):
            raise ProjectError(f"points: expected a list of [x, y] in pixels, got {_short(points)}")
        if not isinstance(labels, list) or any(isinstance(each, bool) or each not in (0, 1) for each in labels):
            raise ProjectError(f"labels: expected 1 (on the object) or 0 (not on it) a point, got {_short(labels)}")
        if box is not None and not _are_numbers(box, 4):
            raise ProjectError(f"box: expected [x0, y0, x1, y1] in pixels, got {_short(box)}")
        xy = tuple((float(x), float(y)) for x, y in points)
        return FramePrompt(xy, tuple(labels), None if box is None else tuple(float(side) for side in box))  # type: ignore[arg-type]

    def rle(self, name: str) -> Rle:
        """A mask as COCO RLE, whose counts are a text or a list; ``decode_rle`` checks what they add up to."""
        value = self._values.get(name)
        size, counts = (value.get("size"), value.get("counts")) if isinstance(value, dict) else (None, None)
        is_list = isinstance(counts, list) and all(isinstance(each, int) and 0 <= each < 2**31 for each in counts)
        if not _are_numbers(size, 2) or not (is_list or isinstance(counts, str)):
            raise ProjectError(f'{name}: expected {{"size": [rows, columns], "counts": ...}}, got {_short(value)}')
        return {"size": size, "counts": counts}  # type: ignore[typeddict-item]


async def json_fields(request: Request, *known: str) -> Fields:
    """The body of a request.

    Raises:
        TooLargeError: it is too long.
        ProjectError: it is no JSON object, or has other fields.
    """
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise ProjectError("expected a body of the type application/json")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise TooLargeError(f"expected a body of at most {MAX_BODY_BYTES} bytes, got more")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"expected JSON: {error}") from error
    return Fields(values, known)


def query_integer(request: Request, name: str) -> int:
    """A whole number of the address."""
    return as_integer(name, request.query_params.get(name))


def as_integer(name: str, text: str | None) -> int:
    """A whole number from a text."""
    if text is None or not re.fullmatch(r"-?\d{1,9}", text):
        raise ProjectError(f"{name}: expected a whole number, got {_short(text)}")
    return int(text)


def _are_numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in value)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
