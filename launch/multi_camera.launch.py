"""Track in several cameras: ``ros2 launch sam2_ros multi_camera.launch.py cameras:=left,right``.

One process with one set of weights; each camera gets a node of its own in a namespace of its name, with its topics
below /left/sam2_node and so on. Every other argument of ``sam2.launch.py`` may be given too and applies to all cameras.
"""

from __future__ import annotations

import re
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

ONE_PROCESS = Path(get_package_share_directory("sam2_ros")) / "launch" / "sam2.launch.py"

# Name, default, meaning. {camera} stands for each camera's name in turn.
ARGUMENTS = (
    ("cameras", "left,right", "names of the cameras, separated by commas; each becomes a namespace"),
    ("image_topic", "/{camera}/image_raw", "images of each camera"),
    ("camera_info_topic", "", "calibration of each camera; not given: camera_info beside the image topic"),
    ("depth_topic", "", "depth images of each camera, such as /{camera}/depth/image_raw"),
)
TOPICS = tuple(name for name, _, _ in ARGUMENTS if name.endswith("_topic"))


def camera_names(text: str) -> list[str]:
    """``"left, right"`` as ["left", "right"]; ValueError unless all can be namespaces and no two are the same."""
    names = [name.strip() for name in text.split(",")]
    bad = [name for name in names if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)]
    if bad or len(set(names)) < len(names):
        raise ValueError(
            f"cameras:={text}: expected different names of letters, digits and _, joined by commas, such as left,right"
        )
    return names


def check_topics(cameras: list[str], value: dict[str, str]) -> None:
    """ValueError when several cameras would read the same images."""
    for name in TOPICS:
        if len(cameras) > 1 and value[name] and "{camera}" not in value[name]:
            raise ValueError(f"{name}:={value[name]} is one topic for {len(cameras)} cameras: put {{camera}} into it")


def make_cameras(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Read the arguments, now that their values are known."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    cameras = camera_names(value["cameras"])
    check_topics(cameras, value)
    arguments = {**value, "cameras": ",".join(cameras)}
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(ONE_PROCESS)), launch_arguments=list(arguments.items())
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=make_cameras)])
