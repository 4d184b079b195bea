"""What usual camera drivers call their topics: the table behind ``camera:=`` of the launch files.

The names are those that the drivers have when they are started with the command in ``driver`` and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CameraPreset:
    """One driver. All topics are absolute; depth is aligned with the image, pixel by pixel."""

    driver: str  # the command that starts it as the other fields expect it
    image_topic: str
    camera_info_topic: str
    depth_topic: str = ""  # "" = no depth
    # Of the node, as its parameters are called. Best effort receives from reliable publishers too, so no preset asks
    # for more: a driver whose QoS was changed still matches.
    parameters: dict[str, bool | float | str] = field(default_factory=lambda: {"image_reliability": "best_effort"})


CAMERAS = {
    # realsense2_camera 4.55 and later: camera_namespace and camera_name are both "camera".
    "realsense": CameraPreset(
        driver="ros2 launch realsense2_camera rs_launch.py align_depth.enable:=true enable_sync:=true",
        image_topic="/camera/camera/color/image_raw",
        camera_info_topic="/camera/camera/color/camera_info",
        depth_topic="/camera/camera/aligned_depth_to_color/image_raw",
        # With enable_sync both images are of one frame set; without, they are half a period apart at 30 Hz.
        parameters={"image_reliability": "best_effort", "depth_slop_s": 0.02},
    ),
    # OrbbecSDK_ROS2 2.x; which launch file it is depends on the model.
    "orbbec": CameraPreset(
        driver="ros2 launch orbbec_camera gemini_330_series.launch.py depth_registration:=true",
        image_topic="/camera/color/image_raw",
        camera_info_topic="/camera/color/camera_info",
        depth_topic="/camera/depth/image_raw",
        parameters={"image_reliability": "best_effort", "depth_slop_s": 0.02},
    ),
    # zed_wrapper 5.1 and later; before, the image was /zed/zed_node/rgb/image_rect_color.
    "zed": CameraPreset(
        driver="ros2 launch zed_wrapper zed_camera.launch.py camera_model:=zed2i",
        image_topic="/zed/zed_node/rgb/color/rect/image",
        camera_info_topic="/zed/zed_node/rgb/color/rect/camera_info",
        depth_topic="/zed/zed_node/depth/depth_registered",
        # Both are made of one pair of images and have its stamp. The image is rectified.
        parameters={"image_reliability": "best_effort", "depth_slop_s": 0.005, "rectified": True},
    ),
    # depthai_ros_driver: i_align_depth is on by default. Colour and stereo run freely, so the slop stays the node's.
    "oak": CameraPreset(
        driver="ros2 launch depthai_ros_driver camera.launch.py",
        image_topic="/oak/rgb/image_raw",
        camera_info_topic="/oak/rgb/camera_info",
        depth_topic="/oak/stereo/image_raw",
    ),
    "usb": CameraPreset(
        driver="ros2 run usb_cam usb_cam_node_exe, or ros2 run v4l2_camera v4l2_camera_node",
        image_topic="/image_raw",
        camera_info_topic="/camera_info",
    ),
}
