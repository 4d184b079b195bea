"""cv_bridge where it is installed: raw images in the encodings that ``image_io`` does not read itself.

That of Jazzy (3.4 to 4.1) makes rgb8 of none of these; it gives its reason, and a later one may read more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class OtherEncodings:
    """Calling it reads one image. A cv_bridge that is missing or broken is not imported again for the next image."""

    def __init__(self) -> None:
        self._bridge: Any = None
        self._why_unusable = ""

    def __call__(self, message: Any) -> NDArray[np.uint8] | str:
        """A ``sensor_msgs/Image`` as (H, W, 3) uint8 RGB, or the reason why cv_bridge could not make one of it."""
        if self._bridge is None and not self._why_unusable:
            self._import()
        if self._why_unusable:
            return self._why_unusable
        try:
            image_rgb = np.asarray(self._bridge.imgmsg_to_cv2(message, desired_encoding="rgb8"))
        except Exception as error:  # CvBridgeError; ImportError from its compiled part, which is loaded here only
            return f"cv_bridge could not convert it either ({type(error).__name__}: {error})"
        expected = (message.height, message.width, 3)
        if image_rgb.shape != expected or image_rgb.dtype != np.uint8:
            return f"cv_bridge made {image_rgb.dtype} of shape {image_rgb.shape} of it, expected uint8 of {expected}"
        return np.ascontiguousarray(image_rgb)

    def _import(self) -> None:
        try:
            from cv_bridge import CvBridge

            self._bridge = CvBridge()
        except Exception as error:  # an ImportError, or what a build against another NumPy raises
            self._why_unusable = f"cv_bridge, which may read it, is not usable here ({type(error).__name__}: {error})"
