"""What a session file holds beside the tracker's state, as plain values and back, each checked. ROS-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

FORMAT = "sam2_ros session 1"
# The stamps that a message can hold [ns].
EARLIEST, LARGEST = -(1 << 31) * 1_000_000_000, (1 << 31) * 1_000_000_000 - 1


class SessionFileError(ValueError):
    """A session that cannot be written or read; the message says which, what was expected and what came."""


@dataclass(frozen=True)
class SavedObject:
    """What the node knows about an object and the tracker does not."""

    object_id: str
    class_id: str
    first_seen_ns: int
    last_seen_ns: int


@dataclass(frozen=True)
class SavedBook:
    """A whole session."""

    tracker_state: Any  # checked by the tracker
    next_number: int  # of names that the node chooses
    objects: tuple[SavedObject, ...]

    def to_plain(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "tracker": self.tracker_state,
            "next_number": self.next_number,
            "objects": [asdict(each) for each in self.objects],
        }

    @staticmethod
    def from_plain(plain: object) -> SavedBook:
        """The session again. SessionFileError when it is not one, or says other things than its tracker's state."""
        values = _mapping(plain, {"format", "tracker", "next_number", "objects"}, "session")
        if values["format"] != FORMAT:
            raise SessionFileError(f"format: expected {FORMAT!r}, got {values['format']!r}")
        state = values["tracker"]
        tracked = state.get("objects") if isinstance(state, dict) else None
        if not isinstance(tracked, list) or not isinstance(values["objects"], list):
            raise SessionFileError("session: expected a tracker's state and a list of objects")
        objects = tuple(_object(each, f"objects[{place}]") for place, each in enumerate(values["objects"]))
        tracked_ids = [each.get("object_id") if isinstance(each, dict) else None for each in tracked]
        if [each.object_id for each in objects] != tracked_ids:
            raise SessionFileError(f"objects: expected those of the tracker, {tracked_ids}")
        return SavedBook(state, _number(values["next_number"], "next_number", 1), objects)


def _object(plain: object, where: str) -> SavedObject:
    values = _mapping(plain, {each.name for each in fields(SavedObject)}, where)
    for name in ("object_id", "class_id"):
        if not isinstance(values[name], str) or not _can_be_sent(values[name]):
            raise SessionFileError(f"{where}: {name}: expected a text that a message can hold, got {values[name]!r}")
    for name in ("first_seen_ns", "last_seen_ns"):
        _number(values[name], f"{where}: {name}", EARLIEST)
    return SavedObject(**values)


def _can_be_sent(text: str) -> bool:
    """Whether a message can hold it whole: half characters have no UTF-8, and a zero would end it."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _mapping(plain: object, names: set[str], where: str) -> dict[str, Any]:
    if not isinstance(plain, dict) or set(plain) != names:
        got = sorted(map(repr, plain)) if isinstance(plain, dict) else type(plain).__name__
        raise SessionFileError(f"{where}: expected {', '.join(sorted(names))}; got {got}")
    return plain


def _number(value: object, where: str, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= LARGEST:
        raise SessionFileError(f"{where}: expected a whole number from {lowest} to {LARGEST}, got {value!r}")
    return value
