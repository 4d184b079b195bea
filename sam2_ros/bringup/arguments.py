"""The arguments of the launch files, and the processes to start for them, decided before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sam2_ros.bringup.cameras import CAMERAS, CameraPreset
from sam2_ros.bringup.parameter_file import LaunchArgumentError, existing_path, read_parameter_file
from sam2_ros.resources import share_path
from sam2_ros.session.parameters import schema

Values = Mapping[str, str]  # arguments by name; "" = not given
Parameters = dict[str, bool | float | str]

NODE = "sam2_node"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
# Name, default, meaning.
ARGUMENTS = (
    (
        "namespace",
        "",
        "namespace of the node, below that of an including launch file unless it begins with /; its topics and "
        "services are below <namespace>/sam2_node",
    ),
    ("camera", "", f"{', '.join(CAMERAS)}: the topics and settings of a usual driver, see docs/install.md"),
    (
        "cameras",
        "",
        "names of cameras, such as left,right: one process for all, each in a namespace of its name; put "
        "{camera} into the topics",
    ),
    ("params_file", "", "YAML file with the node's parameters; not given: config/sam2_node.yaml"),
    ("image_topic", "", "camera images to track in (sensor_msgs/Image); not given: that of camera, else image"),
    ("image_transport", "", "raw, or compressed: subscribe to <image_topic>/compressed"),
    ("camera_info_topic", "", "the camera's calibration; not given: camera_info beside the image topic"),
    ("depth_topic", "", "depth images aligned with the camera images; given: use_depth is true unless you say no"),
    ("click_topic", "", "clicks in pixels of that image, such as <image>_mouse_left of rqt_image_view; default click"),
    ("detections_topic", "", "a detector's boxes (vision_msgs/Detection2DArray); default detections"),
    (
        "follow",
        "",
        "classes of a detector, such as person or person,dog: the first one that it sees is tracked and its pose is "
        "<node>/target_pose; needs vision_msgs, depth images and detections_topic",
    ),
    ("model", "", "name of the model, such as nano or sam2.1_hiera_tiny"),
    ("checkpoint", "", "file with the model's weights; without it nano has its own, others are fetched once"),
    ("device", "", "where the model runs, such as cpu or cuda:0"),
    ("use_depth", "", "true: 3-D positions, markers and points from the depth images"),
    ("use_sim_time", "", "true: take the time from /clock (simulation, bags)"),
    ("rviz", "false", "true: open RViz with config/sam2.rviz"),
    ("rqt_click", "false", "true: open rqt_image_view on the overlay; tick its mouse box, and each click is a prompt"),
    ("log_level", "info", f"of the node: {', '.join(LOG_LEVELS)}"),
)
# Arguments that are parameters of the node.
TEXT_PARAMETERS = ("cameras", "image_transport", "model", "checkpoint", "device")
SWITCH_PARAMETERS = ("use_depth", "use_sim_time")
# What config/sam2.rviz shows and publishes, without a namespace.
RVIZ_TOPICS = (
    *(f"/{NODE}/{name}" for name in ("overlay", "label_image_color", "markers", "object_points", "target_pose")),
    "/clicked_point",
)
# Fast DDS loses large images with its default shared-memory segment; the profile enlarges it. Fast DDS 3 (Kilted and
# later) reads the other variable. A profile that the user has set is kept.
FAST_DDS_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


@dataclass(frozen=True)
class Program:
    """One process to start, in the terms of launch_ros' ``Node``."""

    package: str
    executable: str
    name: str | None = None  # None: parameters are for every node of the process
    namespace: str = ""  # absolute, or "" for the root
    parameters: tuple[str | Parameters, ...] = ()  # files and values; the later one wins
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of that of ros2 launch, for this process only


def programs(value: Values, ros_namespace: str, is_installed: Callable[[str], bool]) -> list[Program]:
    """The processes that the arguments ask for: the node first, then the windows.

    Args:
        value: each argument of ``ARGUMENTS``.
        ros_namespace: that an including launch file has pushed (``PushRosNamespace``), or "".
        is_installed: whether ROS has the package of that name.

    Raises:
        LaunchArgumentError: an argument cannot be used, or a package that it needs is missing. Nothing is started:
            when a window could not be opened later, ros2 launch would end and leave the node behind.
    """
    value = complete(value, ros_namespace)
    cameras = cameras_of(value)
    check_follow(value)
    found = [_node(value, cameras)]
    for camera in cameras:
        found += _viewers(camera)
    needed = [program.package for program in found] + ["vision_msgs"] * bool(value["follow"])
    for package in dict.fromkeys(needed):
        if not is_installed(package):
            raise LaunchArgumentError(_missing(package))
    return found


def complete(value: Values, ros_namespace: str) -> dict[str, str]:
    """The arguments with the camera's topics filled in, an absolute namespace and absolute paths, all checked."""
    value = dict(value)
    if value["log_level"] not in LOG_LEVELS:
        raise LaunchArgumentError(f"log_level:={value['log_level']}: expected one of {', '.join(LOG_LEVELS)}")
    check_name("namespace", value["namespace"])
    value["namespace"] = full_namespace(ros_namespace, value["namespace"])
    preset = preset_of(value)
    if preset is not None and not value["image_topic"]:  # the preset's depth would not belong to other images
        for name in ("image_topic", "camera_info_topic", "depth_topic"):
            value[name] = value[name] or getattr(preset, name)
    value["image_topic"] = value["image_topic"] or "image"
    for name in value:
        if name.endswith("_topic"):
            check_name(name, value[name].replace("{camera}", "camera"))
    if value["checkpoint"]:
        value["checkpoint"] = str(existing_path("checkpoint", value["checkpoint"]))
    return value


def preset_of(value: Values) -> CameraPreset | None:
    """The camera of ``camera:=``."""
    name = value["camera"]
    if not name:
        return None
    if name not in CAMERAS:
        raise LaunchArgumentError(f"camera:={name}: expected one of {', '.join(CAMERAS)}")
    if value["cameras"] and not value["image_topic"]:
        raise LaunchArgumentError(
            f"camera:={name} is one camera and cameras:={value['cameras']} several: give image_topic with {{camera}}"
        )
    return CAMERAS[name]


def check_follow(value: Values) -> None:
    """Reject a ``follow:=`` that could never give a pose; for ``complete`` arguments."""
    if not value["follow"]:
        return
    has_depth = value["depth_topic"] and (not value["use_depth"] or is_on("use_depth", value["use_depth"]))
    if not has_depth:
        raise LaunchArgumentError(
            f"follow:={value['follow']} needs depth images for a pose: give depth_topic, or a camera that has depth"
        )
    if not value["detections_topic"]:
        raise LaunchArgumentError(
            f"follow:={value['follow']} needs a detector: give detections_topic (vision_msgs/Detection2DArray)"
        )


def is_on(name: str, text: str) -> bool:
    """The value of an argument that is true or false."""
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise LaunchArgumentError(f"{name}:={text}: expected true or false")
    return text.lower() in ("true", "1", "yes")


def check_name(argument: str, text: str) -> None:
    """Reject invalid names of topics and namespaces, with which the node would end in a traceback. "" is allowed."""
    parts = (text[1:] if text[:1] == "/" else text.removeprefix("~/")).split("/")
    if argument == "namespace":
        parts = text.strip("/").split("/") if text.strip("/") else []
    if text and not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", part) for part in parts):
        raise LaunchArgumentError(
            f"{argument}:={text}: expected names of letters, digits and _ that begin with no digit, joined by /, "
            "such as /camera/image_raw"
        )


def full_namespace(ros_namespace: str, namespace: str) -> str:
    """Joined as launch_ros does: an absolute ``namespace`` stands alone. The result is "" or begins with a /."""
    joined = namespace if namespace.startswith("/") else f"{ros_namespace}/{namespace}"
    joined = "/".join(part for part in joined.split("/") if part)
    return f"/{joined}" if joined else ""


def node_name(value: Values) -> str:
    """The node's full name, below which its topics are; for ``complete`` arguments."""
    return f"{value['namespace']}/{NODE}"


def cameras_of(value: Values) -> list[Values]:
    """The arguments for each node of the process: unchanged for one camera, with its name filled in for several."""
    names = camera_names(value["cameras"]) if value["cameras"] else []
    topics = [name for name in value if name.endswith("_topic")]
    return [
        {
            **value,
            **{topic: value[topic].replace("{camera}", name) for topic in topics},
            "namespace": f"{value['namespace']}/{name}",
        }
        for name in names
    ] or [value]


def camera_names(text: str) -> list[str]:
    """``"left, right"`` as ["left", "right"]: names that can be namespaces, no two the same."""
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) < len(names) or not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in names):
        raise LaunchArgumentError(
            f"cameras:={text}: expected different names of letters, digits and _, joined by commas, such as left,right"
        )
    return names


def check_shared_topics(value: Values) -> None:
    """Reject one topic for several cameras, which would all track in the same images."""
    count = len(camera_names(value["cameras"]))
    for name in ("image_topic", "camera_info_topic", "depth_topic"):
        if count > 1 and value[name] and "{camera}" not in value[name]:
            raise LaunchArgumentError(f"{name}:={value[name]} is one topic for {count} cameras: put {{camera}} into it")


def parameter_overrides(value: Values) -> Parameters:
    """The parameters that the arguments set; all others are left to the params file."""
    overrides: Parameters = {name: value[name] for name in TEXT_PARAMETERS if value[name]}
    overrides |= {name: is_on(name, value[name]) for name in SWITCH_PARAMETERS if value[name]}
    if value["follow"]:
        overrides |= {"detection_mode": "add", "detection_classes": value["follow"]}
    if value["depth_topic"]:
        overrides.setdefault("use_depth", True)
    return overrides


def preset_parameters(preset: CameraPreset | None, of_file: Mapping[str, Any]) -> Parameters:
    """The preset's parameters, except those that the user's file sets to something else than the node's default.

    config/sam2_node.yaml, which users copy, names every default: these must not override the preset.
    """
    defaults = {spec.name: spec.default for spec in schema()}
    given = {} if preset is None else preset.parameters
    return {name: value for name, value in given.items() if of_file.get(name, defaults[name]) == defaults[name]}


def topic_remappings(value: Values) -> list[tuple[str, str]]:
    """Pairs of the node's own topic names and the topics that the arguments give for them."""
    folder, slash, _ = value["image_topic"].rpartition("/")
    click = f"{node_name(value)}/overlay_mouse_left" if is_on("rqt_click", value["rqt_click"]) else "click"
    return [
        ("image", value["image_topic"]),
        ("camera_info", value["camera_info_topic"] or f"{folder}{slash}camera_info"),
        ("depth", value["depth_topic"] or "depth"),
        ("click", value["click_topic"] or click),
        ("detections", value["detections_topic"] or "detections"),
    ]


def fast_dds_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to add to the environment of a process that exchanges images."""
    if any(environment.get(name) for name in FAST_DDS_PROFILE_VARIABLES):
        return {}
    return dict.fromkeys(FAST_DDS_PROFILE_VARIABLES, str(share_path("config/fastdds.xml")))


def _node(value: Values, cameras: Sequence[Values]) -> Program:
    names = [node_name(camera) for camera in cameras]
    parameters: list[str | Parameters] = [str(share_path("config/sam2_node.yaml"))]
    of_file: dict[str, Any] = {}
    if value["params_file"]:
        path, of_file = read_parameter_file("params_file", value["params_file"], names)
        parameters.append(str(path))
    overrides = {**preset_parameters(preset_of(value), of_file), **parameter_overrides(value)}
    remappings = topic_remappings(value)
    if value["cameras"]:  # by full names, so that each node applies only its own
        remappings = [
            (f"{camera['namespace']}/{ours}", theirs) for camera in cameras for ours, theirs in topic_remappings(camera)
        ]
    # For the nodes' own loggers only: debug for all would include thousands of lines of the middleware.
    levels = [f"{name.strip('/').replace('/', '.')}:={value['log_level']}" for name in names]
    return Program(
        package="sam2_ros",
        executable=NODE,
        # Without a name, because with one launch gives the overrides to the node of that full name only.
        name=None if value["cameras"] else NODE,
        namespace=value["namespace"],
        parameters=(*parameters, *([overrides] if overrides else [])),
        remappings=tuple(remappings),
        arguments=("--ros-args", *(part for level in levels for part in ("--log-level", level))),
        environment=fast_dds_environment(os.environ),
    )


def _viewers(value: Values) -> list[Program]:
    """The windows that were asked for, for one camera."""
    viewers = []
    environment = fast_dds_environment(os.environ)
    if is_on("rviz", value["rviz"]):
        # config/sam2.rviz names a node without a namespace: lead its topics to ours.
        remappings = [(topic, value["namespace"] + topic) for topic in RVIZ_TOPICS] if value["namespace"] else []
        viewers.append(
            Program(
                package="rviz2",
                executable="rviz2",
                namespace=value["namespace"],
                arguments=("-d", str(share_path("config/sam2.rviz"))),
                remappings=tuple(remappings),
                environment=environment,
            )
        )
    if is_on("rqt_click", value["rqt_click"]):
        viewers.append(
            Program(
                package="rqt_image_view",
                executable="rqt_image_view",
                namespace=value["namespace"],
                arguments=(f"{node_name(value)}/overlay",),
                environment=environment,
            )
        )
    return viewers


def _missing(package: str) -> str:
    """What to do about a missing package."""
    if package == "sam2_ros":
        return "the package sam2_ros is not in this environment: source the workspace's install/setup.bash"
    argument = {"rviz2": "rviz:=true", "rqt_image_view": "rqt_click:=true", "vision_msgs": "follow:="}[package]
    distribution = os.environ.get("ROS_DISTRO", "<your ROS release>")
    return (
        f"{argument} needs the package {package}, which is not installed: "
        f"sudo apt install ros-{distribution}-{package.replace('_', '-')}"
    )
