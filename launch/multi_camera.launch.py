"""Track in several cameras: ``ros2 launch sam2_ros multi_camera.launch.py cameras:=left,right``.

One process with one set of weights; each camera gets a node of its own in a namespace of its name, with its topics
below /left/sam2_node and so on. The arguments are those of ``sam2.launch.py`` and apply to all cameras.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource

from sam2_ros.bringup.arguments import ARGUMENTS, check_shared_topics
from sam2_ros.resources import share_path

# Where several cameras want another default or another word: name, default, meaning. {camera} stands for each
# camera's name in turn.
CHANGED = {
    "cameras": ("left,right", "names of the cameras, separated by commas; each becomes a namespace"),
    "image_topic": ("/{camera}/image_raw", "images of each camera"),
    "camera_info_topic": ("", "calibration of each camera; not given: camera_info beside the image topic"),
    "depth_topic": ("", "depth images of each camera, such as /{camera}/depth/image_raw"),
}


def make_cameras(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Read the arguments, now that their values are known."""
    value = {name: context.launch_configurations[name] for name, _, _ in ARGUMENTS}
    check_shared_topics(value)
    source = PythonLaunchDescriptionSource(str(share_path("launch/sam2.launch.py")))
    return [IncludeLaunchDescription(source, launch_arguments=list(value.items()))]


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    arguments = []
    for name, default, text in ARGUMENTS:
        default, text = CHANGED.get(name, (default, text))
        arguments.append(DeclareLaunchArgument(name, default_value=default, description=text))
    return LaunchDescription([*arguments, OpaqueFunction(function=make_cameras)])
