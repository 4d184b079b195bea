"""Images of a stream, each read and encoded while the caller works on the one before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.propagation import AheadImage
from sam2_ros.tracking.side_thread import SideThread
from sam2_ros.tracking.tracker import Tracker


def encoded_ahead(tracker: Tracker, images: Iterable[NDArray[np.uint8]]) -> Iterator[AheadImage]:
    """For ``tracker.step``, in order: more of them a second than ``step`` alone, one after the other, has time for.

    Args:
        tracker: as in ``Tracker.encode_ahead``.
        images: (H, W, 3) uint8, RGB; the next one is asked for from another thread, before its turn. What it raises
            comes at its turn.
    """
    source, side = iter(images), SideThread()

    def read_next() -> AheadImage | None:
        image_rgb = next(source, None)
        return None if image_rgb is None else tracker.encode_ahead(image_rgb)

    try:
        image = read_next()
        while image is not None:
            with side.running(read_next) as following:
                yield image
            image = following.result()
    finally:
        side.rest()
