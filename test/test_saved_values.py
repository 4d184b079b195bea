"""The rules for values out of a saved file: what is rejected, and in which words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sam2_ros.saved_values import (
    SavedStateError,
    check_dict,
    check_integer,
    check_keys,
    check_list,
    check_sendable_text,
)


def keys(value: object) -> object:
    return check_keys(value, ("a", "b"), "it", optional=("c",))


def integer(value: object) -> object:
    return check_integer(value, "it", 1, 5)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (lambda value: check_dict(value, "it"), {1: 2}),
        (keys, {"a": 1, "b": 2}),
        (keys, {"b": 1, "a": 2, "c": 3}),
        (lambda value: check_list(value, "it"), []),
        (integer, 1),
        (integer, 5),
        (lambda value: check_integer(value, "it", 0), 10**400),
        (lambda value: check_sendable_text(value, "it"), "Tasse é \U0001f600"),
    ],
)
def test_good_values_are_returned(check: Callable[[object], object], value: object) -> None:
    assert check(value) is value


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (lambda value: check_dict(value, "it"), [], "it: expected a dict, got list"),
        (keys, None, "it: expected a dict, got NoneType"),
        (keys, {"a": 1}, r"it: missing \['b'\], unexpected nothing"),
        (keys, {"a": 1, "b": 2, 3: 4}, r"it: missing nothing, unexpected \['3'\]"),
        (lambda value: check_list(value, "it"), (), "it: expected a list, got tuple"),
        (integer, True, "it: expected a whole number from 1 on, got True"),
        (integer, 1.0, "it: expected a whole number from 1 on, got 1.0"),
        (integer, 0, "it: expected a whole number from 1 on, got 0"),
        (integer, 6, "it: expected at most 5, got 6"),
        (lambda value: check_sendable_text(value, "it"), 7, "it: expected a text that a message can hold, got 7"),
        (lambda value: check_sendable_text(value, "it"), "x" * 257, "it: expected at most 256 characters, got 257"),
        (lambda value: check_sendable_text(value, "it"), "a\0b", "it: expected a text that a message can hold"),
        (lambda value: check_sendable_text(value, "it"), "\ud800", "it: expected a text that a message can hold"),
    ],
)
def test_other_values_are_rejected(check: Callable[[object], object], value: object, message: str) -> None:
    with pytest.raises(SavedStateError, match=f"^{message}"):
        check(value)
