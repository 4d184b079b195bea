"""Start the tracking node: ``ros2 launch sam2_ros sam2.launch.py image_topic:=/camera/image_raw``.

Only what is given is set: everything else keeps the value of the params file, or else the node's default.
"""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory("sam2_ros"))

# Name, default, meaning. "" = not given.
ARGUMENTS = (
    ("namespace", "", "namespace of the node; its topics and services are below <namespace>/sam2_node"),
    ("params_file", str(SHARE / "config" / "sam2_node.yaml"), "YAML file with the node's parameters"),
    ("image_topic", "image", "camera images to track in (sensor_msgs/Image)"),
    ("click_topic", "click", "clicks in pixels of that image, such as <image>_mouse_left of rqt_image_view"),
    ("model", "", "name of the model, such as nano or sam2.1_hiera_tiny"),
    ("checkpoint", "", "file with the model's weights; not needed for nano"),
    ("device", "", "where the model runs, such as cpu or cuda:0"),
    ("use_sim_time", "", "true: take the time from /clock (simulation, bags)"),
    ("log_level", "info", "debug, info, warn, error or fatal"),
)
# Arguments that are parameters of the node, and how their text becomes a value.
PARAMETERS = ("model", "checkpoint", "device")

# Fast DDS loses large images with its default shared-memory segment; the profile raises it. Fast DDS 3 (Kilted and
# later) reads the other name. A profile that the user has set stays.
FAST_DDS_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def make_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Read the arguments, now that their values are known."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    overrides: dict[str, object] = {name: value[name] for name in PARAMETERS if value[name]}
    if value["use_sim_time"]:
        overrides["use_sim_time"] = value["use_sim_time"].lower() in ("true", "1", "yes")
    return [
        Node(
            package="sam2_ros",
            executable="sam2_node",
            name="sam2_node",
            namespace=value["namespace"],
            parameters=[value["params_file"], overrides],
            remappings=[("image", value["image_topic"]), ("click", value["click_topic"])],
            arguments=["--ros-args", "--log-level", value["log_level"]],
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    profile = str(SHARE / "config" / "fastdds.xml")
    chosen_by_user = any(os.environ.get(name) for name in FAST_DDS_PROFILE_VARIABLES)
    profiles = [] if chosen_by_user else [SetEnvironmentVariable(name, profile) for name in FAST_DDS_PROFILE_VARIABLES]
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, *profiles, OpaqueFunction(function=make_node)])
