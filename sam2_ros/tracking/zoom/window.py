"""The geometry of zoom: which part of an image is looked at, by the box of the object's last mask.

The tracker and the training clips that are seen through a window (``data/clips/window.py``) both use it, so objects
have the same size and place in what the network is trained on and in what it tracks. No dependencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_ZOOMED_OBJECTS = 2  # each needs its own image encoding; with more objects the whole image is looked at
_SMALLEST_PX = 8
_ON_EDGE_PX = 0.5  # a box that comes this close to an edge of the window touches it


@dataclass(frozen=True)
class Window:
    """A part of an image, in whole pixels of it: columns ``x0`` to ``x1`` and rows ``y0`` to ``y1``, ends exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int
    image_hw: tuple[int, int]  # size of the image that it is a part of, px

    @classmethod
    def whole(cls, image_hw: tuple[int, int]) -> Window:
        return cls(0, 0, image_hw[1], image_hw[0], image_hw)

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def side(self) -> int:
        """The longer side, px. The other one is shorter only where the image is."""
        return max(self.width, self.height)

    @property
    def is_whole(self) -> bool:
        return (self.height, self.width) == self.image_hw

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns, to index an image with."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        return self.x0, self.y0, self.x1, self.y1

    def contains(self, box_xyxy: Sequence[float]) -> bool:
        """Whether a box in pixels of the image lies in the window."""
        x0, y0, x1, y1 = box_xyxy
        return self.x0 <= x0 and self.y0 <= y0 and x1 <= self.x1 and y1 <= self.y1

    def cuts(self, box_xyxy: Sequence[float]) -> bool:
        """Whether the object of this box may continue beyond the window: the box touches an edge inside the image."""
        x0, y0, x1, y1 = box_xyxy
        height, width = self.image_hw
        return (
            (self.x0 > 0 and x0 <= self.x0 + _ON_EDGE_PX)
            or (self.y0 > 0 and y0 <= self.y0 + _ON_EDGE_PX)
            or (self.x1 < width and x1 >= self.x1 - _ON_EDGE_PX)
            or (self.y1 < height and y1 >= self.y1 - _ON_EDGE_PX)
        )


@dataclass(frozen=True)
class WindowRules:
    """How large a window is, and when it moves.

    It grows at once, shrinks slowly, and stays where it is while the object only trembles: an object that stands still
    is seen in the same pixels in every frame.
    """

    zoom: float = 2.0  # side of the window, in longer sides of the object's box
    smallest: float = (
        0.18  # side of the smallest window, in shorter sides of the image; a smaller one has no detail to gain
    )
    least_kept: float = 0.8  # a window is kept while the right side is from this ...
    most_kept: float = 1.1  # ... to this many sides of it
    shrinking: float = 0.9  # in one frame at most
    opening: float = 1.5  # at least, where the window cuts the object
    slack: float = 0.06  # sides of the window by which the object may be off its middle before the window moves


def next_window(
    box_xyxy: Sequence[float],
    image_hw: tuple[int, int],
    previous: Window | None = None,
    rules: WindowRules | None = None,
) -> Window:
    """Where to look for an object in the next frame.

    Args:
        box_xyxy: of its mask in this frame, in pixels of the image, ends exclusive.
        image_hw: size of the image, px.
        previous: the window of this frame; None where the whole image was looked at.
        rules: of the windows.

    Returns:
        A window about ``zoom`` times as large as the longer side of the box, inside the image; all of the image for a
        large object.
    """
    rules = rules or WindowRules()
    x0, y0, x1, y1 = box_xyxy
    side = rules.zoom * max(x1 - x0, y1 - y0)
    if previous is not None:
        if previous.cuts(box_xyxy):
            side = max(side, rules.opening * previous.side)
        if rules.least_kept * previous.side <= side <= rules.most_kept * previous.side:
            side = previous.side
        side = max(side, rules.shrinking * previous.side)
    window = place_window(((x0 + x1) / 2, (y0 + y1) / 2), side, image_hw, rules.smallest)
    if previous is not None and (window.width, window.height) == (previous.width, previous.height):
        strays = max(abs(window.x0 - previous.x0), abs(window.y0 - previous.y0))
        if strays <= rules.slack * previous.side:
            return previous
    return window


def place_window(
    middle_xy: Sequence[float], side_px: float, image_hw: tuple[int, int], smallest: float = WindowRules.smallest
) -> Window:
    """The square with this middle and side, moved into the image; where the image is too narrow, as much as it has.

    Args:
        middle_xy: px.
        side_px: not less than ``smallest`` shorter sides of the image counts.
        image_hw: size of the image, px.
        smallest: as in ``WindowRules``.
    """
    height, width = image_hw
    side = round(max(side_px, smallest * min(image_hw), _SMALLEST_PX))
    across, down = min(side, width), min(side, height)
    x0 = min(max(round(middle_xy[0] - across / 2), 0), width - across)
    y0 = min(max(round(middle_xy[1] - down / 2), 0), height - down)
    return Window(x0, y0, x0 + across, y0 + down, image_hw)
