"""message_filters where it is installed: which depth image and which calibration belong to a camera image.

An image never waits for its partners. What message_filters has paired is stored, and is there or not when the masks
are; without it, without a pair, or where another depth image is nearer in time than the paired one, ``DepthSource``
takes the nearest depth image, and without a pair the newest calibration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from sam2_ros.node.conversions import stamp_to_ns
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.stamps import JUMP_BACK_S

logger = logging.getLogger(__name__)

QUEUED = 30  # messages of each topic that wait for their partners: 1 s of a usual camera


class ImagePairing:
    """Pairs camera images with depth images and calibrations by their stamps, with an ApproximateTimeSynchronizer.

    The synchronizer holds its lock while it calls back, and for ever if the callback raises, so the callback only
    stores. On the executor's thread only.

    Args:
        store: gets the stamps of image and depth image [ns], the depth image and the calibration of each pair.
        parameters: the current ones; ``depth_slop_s`` is how far the stamps may be apart.
    """

    def __init__(self, store: Callable[[int, int, Any, Any], None], parameters: Callable[[], NodeParameters]) -> None:
        self._store = store
        self._parameters = parameters
        self._filters: tuple[Any, ...] = ()  # of images, depth images, calibrations; empty where there is no package
        self._connected_slop_s = -1.0
        self._newest_ns = [0, 0, 0]
        self._package = _import_message_filters()

    @property
    def is_usable(self) -> bool:
        return self._package is not None

    def add_image(self, message: Any) -> None:
        self._add(0, SimpleNamespace(header=message.header))  # the queue must not keep the pixels

    def add_depth(self, message: Any) -> None:
        self._add(1, message)

    def add_camera_info(self, message: Any) -> None:
        self._add(2, message)

    def _add(self, place: int, message: Any) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        if self._package is None or stamp_ns == 0:
            return
        # Its queues drop the lowest stamps, so after a jump back they would drop all that comes.
        went_back = stamp_ns < self._newest_ns[place] - JUMP_BACK_S * 1e9
        self._newest_ns[place] = stamp_ns
        try:
            if went_back or self._connected_slop_s != self._parameters().depth_slop_s:
                self._connect(self._package)
            self._filters[place].signalMessage(message)
        except Exception as error:
            self._package, self._filters = None, ()
            logger.warning("%s", _not_usable(error))

    def _connect(self, package: Any) -> None:
        """Begin with empty queues."""
        self._connected_slop_s = self._parameters().depth_slop_s
        self._filters = tuple(package.SimpleFilter() for _ in range(3))
        synchronizer = package.ApproximateTimeSynchronizer(list(self._filters), QUEUED, self._connected_slop_s)
        synchronizer.registerCallback(self._on_pair)

    def _on_pair(self, image: Any, depth: Any, camera_info: Any) -> None:
        try:
            self._store(stamp_to_ns(image.header.stamp), stamp_to_ns(depth.header.stamp), depth, camera_info)
        except Exception:  # not into the synchronizer, whose lock would stay taken
            logger.exception("a pair of image and depth could not be stored")


def _import_message_filters() -> Any:
    """The package, or None where there is none; what breaks while it is imported is logged."""
    try:
        import message_filters
    except ImportError:
        return None
    except Exception as error:
        logger.warning("%s", _not_usable(error))
        return None
    return message_filters


def _not_usable(error: Exception) -> str:
    return (
        f"message_filters is not usable here ({type(error).__name__}: {error}): images take the depth image nearest in "
        "time and the newest calibration"
    )
