"""What a parameter of the node is: its type, range and description, and the check of a value."""

from __future__ import annotations

import math
from dataclasses import dataclass

Value = bool | int | float | str
TYPE_NAMES = {bool: "bool", int: "integer", float: "double", str: "string"}


class ParameterError(ValueError):
    """A parameter value that cannot be used; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter. ``live`` ones may change at any time, the others only while the node is unconfigured."""

    name: str
    default: Value
    description: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None  # inclusive
    maximum: float | None = None  # inclusive
    live: bool = False

    @property
    def type_name(self) -> str:
        return TYPE_NAMES[type(self.default)]

    def check(self, value: object) -> Value:
        """Return ``value`` in the parameter's own type (an integer is taken for a double), else ParameterError."""
        expected = type(self.default)
        if expected is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not expected:
            got = f"{value!r} ({type(value).__name__})"
            raise ParameterError(f"{self.name} must be of type {self.type_name}, got {got}")
        assert isinstance(value, (bool, int, float, str))
        if self.choices and value not in self.choices:
            raise ParameterError(f"{self.name} must be one of {', '.join(self.choices)}; got {value!r}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self._check_range(value)
        return value

    def _check_range(self, value: float) -> None:
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if not low <= value <= high:  # NaN fails both
            raise ParameterError(f"{self.name} is out of range, allowed: {self.range_text()}; got {value}")

    def range_text(self) -> str:
        """What is allowed, for people; empty when anything of the type is."""
        if self.choices:
            return ", ".join(choice or '""' for choice in self.choices)
        if self.minimum is None:
            return ""
        return f">= {self.minimum:g}" if self.maximum is None else f"{self.minimum:g} .. {self.maximum:g}"
