"""A node of a rig that has a calibrated camera, for tests of what is clicked or looked up in its images."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from sam2_ros.node.conversions import array_to_image, ns_to_stamp

SECOND = 1_000_000_000  # ns
_K = [40.0, 0.0, 15.5, 0.0, 40.0, 11.5, 0.0, 0.0, 1.0]


class CalibratedCamera:
    """It has images of 32 x 24 px, a focal length of 40 px, and the frame "camera"."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        rig.start()
        self.images = rig.publisher(Image, "image", qos_profile_sensor_data)
        infos = rig.publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        infos.publish(CameraInfo(header=Header(frame_id="camera"), width=32, height=24, k=_K))
        rig.spin_until(lambda: rig.node._depth.camera_frame == "camera", "the calibration arrives")

    def show(self, stamp_s: float) -> None:
        """One image through the node."""
        before = self.rig.node._session.stats().processed
        self.images.publish(array_to_image(np.zeros((24, 32, 3), np.uint8), "rgb8", self.header(stamp_s)))
        self.rig.spin_until(lambda: self.rig.node._session.stats().processed > before, "the image is processed")

    @staticmethod
    def header(stamp_s: float, frame: str = "camera") -> Header:
        return Header(frame_id=frame, stamp=ns_to_stamp(round(stamp_s * SECOND)))
