"""Validate the plain values of a saved file before anything uses them: whoever wrote the file may be anybody.

The tracker's state and the session around it are both saved as dicts, lists, numbers, strings and tensors; the rules
for these are here, the formats in ``tracking/state_io.py`` and ``session/persistence.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class SavedStateError(ValueError):
    """An unusable saved state; the message says where, what was expected and what came."""


def check_dict(value: object, where: str) -> dict[Any, Any]:
    """The value, which must be a dict."""
    if not isinstance(value, dict):
        raise SavedStateError(f"{where}: expected a dict, got {type(value).__name__}")
    return value


def check_keys(value: object, names: Collection[str], where: str, optional: Collection[str] = ()) -> dict[str, Any]:
    """The value, which must be a dict with exactly the keys ``names`` and any of ``optional``."""
    values = check_dict(value, where)
    if values.keys() - set(optional) != set(names):
        missing = sorted(set(names) - values.keys())
        unknown = sorted(map(repr, values.keys() - set(names) - set(optional)))
        raise SavedStateError(f"{where}: missing {missing or 'nothing'}, unexpected {unknown or 'nothing'}")
    return values


def check_list(value: object, where: str) -> list[Any]:
    """The value, which must be a list."""
    if not isinstance(value, list):
        raise SavedStateError(f"{where}: expected a list, got {type(value).__name__}")
    return value


def check_integer(value: object, where: str, lowest: int, highest: int | None = None) -> int:
    """The value, which must be a whole number (no bool) from ``lowest`` to ``highest``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise SavedStateError(f"{where}: expected a whole number from {lowest} on, got {value!r}")
    if highest is not None and value > highest:
        raise SavedStateError(f"{where}: expected at most {highest}, got {value}")
    return value


MAX_NAME_LENGTH = 256  # characters of an object's id or class, which are in every message about it


def check_sendable_text(value: object, where: str) -> str:
    """The value, which must be a text that a ROS string can hold, of at most ``MAX_NAME_LENGTH`` characters.

    Lone surrogates have no UTF-8 encoding, and a zero byte would end the string.
    """
    if not isinstance(value, str) or "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise SavedStateError(f"{where}: expected a text that a message can hold, got {value!r}")
    if len(value) > MAX_NAME_LENGTH:
        raise SavedStateError(f"{where}: expected at most {MAX_NAME_LENGTH} characters, got {len(value)}")
    return value
