"""cv_bridge where it is installed: the encodings that ``conversions`` does not read itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_as_rgb(message: Any) -> NDArray[np.uint8] | str:
    """A ``sensor_msgs/Image`` of any encoding as (H, W, 3) uint8 RGB, or the reason why cv_bridge could not."""
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # an ImportError, or what a build against another NumPy raises
        return f"cv_bridge, which reads more encodings, is not usable here ({type(error).__name__}: {error})"
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8"))
    except Exception as error:
        return f"cv_bridge could not convert it either ({error})"
