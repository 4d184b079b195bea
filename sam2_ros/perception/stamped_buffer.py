"""What came last on a topic, found by its stamp."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Generic, TypeVar

Item = TypeVar("Item")


class StampedBuffer(Generic[Item]):
    """The last ``capacity`` items received, in whatever order their stamps are. Any thread may use it.

    In addition it keeps the item nearest to each stamp that will still be asked for.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"expected room for at least one item, got capacity {capacity}")
        self._capacity = capacity
        self._items: list[tuple[int, Item]] = []  # by arrival, not by stamp: bags are restarted
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, stamp_ns: int, item: Item, wanted_ns: Collection[int] = ()) -> None:
        """Add an item. ``wanted_ns``: stamps whose nearest items are kept."""
        with self._lock:
            self._items.append((stamp_ns, item))
            surplus = len(self._items) - self._capacity
            if surplus > 0:
                kept = {self._nearest_index(wanted) for wanted in wanted_ns}
                self._items[:surplus] = [entry for index, entry in enumerate(self._items[:surplus]) if index in kept]

    def nearest(self, stamp_ns: int, slop_ns: int) -> Item | None:
        """The item whose stamp is nearest, at most ``slop_ns`` away; the newer arrival where two are equally near."""
        found = self._nearest(stamp_ns)
        return found[1] if found is not None and abs(found[0] - stamp_ns) <= slop_ns else None

    def offset_ns(self, stamp_ns: int) -> int | None:
        """How much later (negative: earlier) than ``stamp_ns`` the nearest item is; None without items."""
        found = self._nearest(stamp_ns)
        return found[0] - stamp_ns if found is not None else None

    def clear(self) -> None:
        with self._lock:
            self._items.clear()

    def discard_after(self, stamp_ns: int) -> None:
        """Drop the items of a later stamp."""
        with self._lock:
            self._items = [entry for entry in self._items if entry[0] <= stamp_ns]

    def _nearest(self, stamp_ns: int) -> tuple[int, Item] | None:
        with self._lock:
            return self._items[self._nearest_index(stamp_ns)] if self._items else None

    def _nearest_index(self, stamp_ns: int) -> int:
        return min(reversed(range(len(self._items))), key=lambda index: abs(self._items[index][0] - stamp_ns))
