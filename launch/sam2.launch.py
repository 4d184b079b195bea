"""Start the tracking node: ``ros2 launch sam2_ros sam2.launch.py image_topic:=/camera/image_raw``.

Only what is given is set: everything else keeps the value of the params file, or else the node's default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory("sam2_ros"))

# Name, default, meaning. "" = not given.
ARGUMENTS = (
    ("namespace", "", "namespace of the node; its topics and services are below <namespace>/sam2_node"),
    (
        "cameras",
        "",
        "names of cameras, such as left,right: one process for all, each in a namespace of its name; put "
        "{camera} into the topics",
    ),
    ("params_file", str(SHARE / "config" / "sam2_node.yaml"), "YAML file with the node's parameters"),
    ("image_topic", "image", "camera images to track in (sensor_msgs/Image)"),
    ("image_transport", "", "raw, or compressed: subscribe to <image_topic>/compressed"),
    ("camera_info_topic", "", "the camera's calibration; not given: camera_info beside the image topic"),
    ("depth_topic", "", "depth images aligned with the camera images; given: use_depth is true unless you say no"),
    ("click_topic", "", "clicks in pixels of that image, such as <image>_mouse_left of rqt_image_view; default click"),
    ("model", "", "name of the model, such as nano or sam2.1_hiera_tiny"),
    ("checkpoint", "", "file with the model's weights; not needed for nano"),
    ("device", "", "where the model runs, such as cpu or cuda:0"),
    ("use_depth", "", "true: 3-D positions, markers and points from the depth images"),
    ("use_sim_time", "", "true: take the time from /clock (simulation, bags)"),
    ("rviz", "false", "true: open RViz with config/sam2.rviz"),
    ("rqt_click", "false", "true: open rqt_image_view on the overlay; tick its mouse box, and each click is a prompt"),
    ("log_level", "info", "debug, info, warn, error or fatal"),
)
# Arguments that are parameters of the node.
TEXT_PARAMETERS = ("cameras", "image_transport", "model", "checkpoint", "device")
SWITCH_PARAMETERS = ("use_depth", "use_sim_time")
# What config/sam2.rviz shows and publishes, without a namespace.
RVIZ_TOPICS = (
    *(f"/sam2_node/{name}" for name in ("overlay", "label_image", "markers", "object_points", "target_pose")),
    "/clicked_point",
)

# Fast DDS loses large images with its default shared-memory segment; the profile raises it. Fast DDS 3 (Kilted and
# later) reads the other name. A profile that the user has set stays.
FAST_DDS_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

Values = Mapping[str, str]


def is_on(name: str, text: str) -> bool:
    """What an argument that is a switch says; ValueError for anything but true and false."""
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError(f"{name}:={text}: expected true or false")
    return text.lower() in ("true", "1", "yes")


def parameter_overrides(value: Values) -> dict[str, str | bool]:
    """The node's parameters that the arguments set; the others are not named, so the params file keeps its say."""
    overrides: dict[str, str | bool] = {name: value[name] for name in TEXT_PARAMETERS if value[name]}
    overrides |= {name: is_on(name, value[name]) for name in SWITCH_PARAMETERS if value[name]}
    if value["depth_topic"]:
        overrides.setdefault("use_depth", True)
    return overrides


def cameras_of(value: Values) -> list[Values]:
    """The arguments for each node of the process: as they are for one camera, by name for several."""
    names = [name.strip() for name in value["cameras"].split(",") if name.strip()]
    topics = [name for name in value if name.endswith("_topic")]
    return [
        {
            **value,
            **{topic: value[topic].replace("{camera}", name) for topic in topics},
            "namespace": f"{value['namespace']}/{name}",
        }
        for name in names
    ] or [value]


def process_remappings(value: Values) -> list[tuple[str, str]]:
    """``topic_remappings``; for several cameras by full names, which each node applies to itself alone."""
    if not value["cameras"]:
        return topic_remappings(value)
    return [
        (f"{node_name(camera).removesuffix('sam2_node')}{ours}", theirs)
        for camera in cameras_of(value)
        for ours, theirs in topic_remappings(camera)
    ]


def topic_remappings(value: Values) -> list[tuple[str, str]]:
    """The node's own names of what it subscribes to, and where the arguments say it comes from."""
    folder, slash, _ = value["image_topic"].rpartition("/")
    click = f"{node_name(value)}/overlay_mouse_left" if is_on("rqt_click", value["rqt_click"]) else "click"
    return [
        ("image", value["image_topic"]),
        ("camera_info", value["camera_info_topic"] or f"{folder}{slash}camera_info"),
        ("depth", value["depth_topic"] or "depth"),
        ("click", value["click_topic"] or click),
    ]


def node_name(value: Values) -> str:
    """The node's full name, below which its topics are."""
    namespace = value["namespace"].strip("/")
    return f"/{namespace}/sam2_node" if namespace else "/sam2_node"


def rviz_remappings(value: Values) -> list[tuple[str, str]]:
    """config/sam2.rviz names a node without a namespace: lead its topics to ours."""
    namespace = value["namespace"].strip("/")
    return [(topic, f"/{namespace}{topic}") for topic in RVIZ_TOPICS] if namespace else []


def make_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Read the arguments, now that their values are known."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    # As texts, whatever they look like: launch would read a checkpoint named 1.0 as a number.
    overrides = {
        name: ParameterValue(given, value_type=type(given)) for name, given in parameter_overrides(value).items()
    }
    nodes = [
        Node(
            package="sam2_ros",
            executable="sam2_node",
            # With a name launch hands the overrides to a node of that full name only, and the cameras' are others.
            name=None if value["cameras"] else "sam2_node",
            namespace=value["namespace"],
            parameters=[value["params_file"], *([overrides] if overrides else [])],
            remappings=process_remappings(value),
            arguments=["--ros-args", "--log-level", value["log_level"]],
            output="screen",
            emulate_tty=True,
        )
    ]
    for camera in cameras_of(value):
        nodes += make_viewers(camera)
    return nodes


def make_viewers(value: Values) -> list[Node]:
    """The windows that were asked for."""
    viewers = []
    if is_on("rviz", value["rviz"]):
        config = str(SHARE / "config" / "sam2.rviz")
        viewers.append(
            Node(package="rviz2", executable="rviz2", arguments=["-d", config], remappings=rviz_remappings(value))
        )
    if is_on("rqt_click", value["rqt_click"]):
        overlay = f"{node_name(value)}/overlay"
        viewers.append(Node(package="rqt_image_view", executable="rqt_image_view", arguments=[overlay]))
    return viewers


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    profile = str(SHARE / "config" / "fastdds.xml")
    chosen_by_user = any(os.environ.get(name) for name in FAST_DDS_PROFILE_VARIABLES)
    profiles = [] if chosen_by_user else [SetEnvironmentVariable(name, profile) for name in FAST_DDS_PROFILE_VARIABLES]
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, *profiles, OpaqueFunction(function=make_nodes)])
