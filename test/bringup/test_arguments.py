"""What the launch files start, decided by plain functions: no part of ROS' launch is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sam2_ros.bringup.arguments import (
    ARGUMENTS,
    FAST_DDS_PROFILE_VARIABLES,
    SWITCH_PARAMETERS,
    TEXT_PARAMETERS,
    Program,
    check_shared_topics,
    full_namespace,
    programs,
)
from sam2_ros.bringup.cameras import CAMERAS
from sam2_ros.bringup.parameter_file import LaunchArgumentError
from sam2_ros.session.parameters import schema

ROOT = Path(__file__).parents[2]
DEFAULTS = {name: default for name, default, _ in ARGUMENTS}


@pytest.fixture(autouse=True)
def no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in FAST_DDS_PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def everything(_package: str) -> bool:
    return True


def started(pushed: str = "", is_installed: Callable[[str], bool] = everything, **given: str) -> list[Program]:
    assert set(given) <= set(DEFAULTS), "not an argument of the launch files"
    return programs({**DEFAULTS, **given}, pushed, is_installed)


def node(pushed: str = "", **given: str) -> Program:
    return started(pushed, **given)[0]


def overrides(program: Program) -> Any:
    """The parameters by value; without any there is only the default file."""
    return program.parameters[-1] if isinstance(program.parameters[-1], dict) else {}


def test_what_is_not_given_is_left_to_the_node() -> None:
    (program,) = started()
    assert program.parameters == (str(ROOT / "config" / "sam2_node.yaml"),)
    assert (program.package, program.executable, program.name) == ("sam2_ros", "sam2_node", "sam2_node")
    assert (ROOT / "scripts" / program.executable).is_file()


def test_given_arguments_reach_the_node() -> None:
    program = node(
        namespace="left",
        image_topic="/camera/image_raw",
        image_transport="compressed",
        depth_topic="/camera/depth/image_raw",
        click_topic="/camera/image_raw_mouse_left",
        detections_topic="/yolo/boxes",
        model="sam2.1_hiera_tiny",
        device="cuda:0",
        use_sim_time="true",
        log_level="debug",
    )
    assert overrides(program) == {
        "image_transport": "compressed",
        "model": "sam2.1_hiera_tiny",
        "device": "cuda:0",
        "use_sim_time": True,
        "use_depth": True,  # depth_topic was given
    }
    assert program.remappings == (
        ("image", "/camera/image_raw"),
        ("camera_info", "/camera/camera_info"),
        ("depth", "/camera/depth/image_raw"),
        ("click", "/camera/image_raw_mouse_left"),
        ("detections", "/yolo/boxes"),
    )
    assert program.namespace == "/left"
    assert overrides(node(depth_topic="/depth", use_depth="false")) == {"use_depth": False}


def test_overridden_parameters_exist_in_the_node() -> None:
    known = {spec.name for spec in schema()}
    ours = {*TEXT_PARAMETERS, *SWITCH_PARAMETERS} - {"use_sim_time"}  # every node has it
    assert ours <= known, "the node would ignore these"


@pytest.mark.parametrize(
    ("image_topic", "given", "camera_info"),
    [
        ("image", "", "camera_info"),
        ("/image_raw", "", "/camera_info"),
        ("/camera/color/image_raw", "", "/camera/color/camera_info"),
        ("/camera/color/image_raw", "/mine", "/mine"),
    ],
)
def test_camera_info_is_beside_the_images(image_topic: str, given: str, camera_info: str) -> None:
    program = node(image_topic=image_topic, camera_info_topic=given)
    assert dict(program.remappings)["camera_info"] == camera_info


# Namespaces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pushed", "given", "joined"),
    [
        ("", "", ""),
        ("", "left", "/left"),
        ("", "/left/", "/left"),
        ("/robot", "", "/robot"),
        ("robot", "left", "/robot/left"),
        ("/robot/", "left/eye", "/robot/left/eye"),
        ("/robot", "/left", "/left"),  # launch_ros: an absolute one stands alone
        ("/robot", "/", ""),
        ("/", "left", "/left"),
    ],
)
def test_namespaces_are_joined_as_launch_ros_does(pushed: str, given: str, joined: str) -> None:
    assert full_namespace(pushed, given) == joined
    assert node(pushed, namespace=given).namespace == joined


@pytest.mark.parametrize("arguments", [{"pushed": "/robot", "namespace": "left"}, {"namespace": "robot/left"}])
def test_a_pushed_namespace_is_as_good_as_a_given_one(arguments: dict[str, str]) -> None:
    program, rviz, view = started(image_topic="/camera/image_raw", rviz="true", rqt_click="true", **arguments)
    assert dict(program.remappings)["image"] == "/camera/image_raw"
    assert dict(program.remappings)["click"] == "/robot/left/sam2_node/overlay_mouse_left"
    assert program.arguments == ("--ros-args", "--log-level", "robot.left.sam2_node:=info")
    assert ("/sam2_node/overlay", "/robot/left/sam2_node/overlay") in rviz.remappings
    assert ("/clicked_point", "/robot/left/clicked_point") in rviz.remappings
    assert view.arguments == ("/robot/left/sam2_node/overlay",)


def test_several_cameras_in_a_pushed_namespace_have_their_absolute_topics() -> None:
    program, *viewers = started(
        "/robot", cameras="front, back", image_topic="/{camera}/image_raw", rviz="true", rqt_click="true"
    )
    assert program.name is None  # else the parameters would be for /robot/sam2_node alone
    remapped = dict(program.remappings)
    assert remapped["/robot/front/image"] == "/front/image_raw"
    assert remapped["/robot/back/camera_info"] == "/back/camera_info"
    assert remapped["/robot/back/click"] == "/robot/back/sam2_node/overlay_mouse_left"
    assert len(remapped) == 2 * len(node().remappings)
    assert program.arguments[2::2] == ("robot.front.sam2_node:=info", "robot.back.sam2_node:=info")
    assert [viewer.package for viewer in viewers] == ["rviz2", "rqt_image_view"] * 2
    assert ("/sam2_node/markers", "/robot/back/sam2_node/markers") in viewers[2].remappings


# What is rejected before anything starts ----------------------------------------------------------------------------


@pytest.mark.parametrize(("argument", "package"), [("rviz", "rviz2"), ("rqt_click", "rqt_image_view")])
def test_a_window_without_its_package_starts_nothing(
    argument: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    apt = f"{argument}:=true needs .*sudo apt install ros-jazzy-{package.replace('_', '-')}$"
    with pytest.raises(LaunchArgumentError, match=apt):
        started(is_installed=lambda name: name != package, **{argument: "true"})
    assert len(started(is_installed=lambda name: name == "sam2_ros")) == 1
    with pytest.raises(LaunchArgumentError, match=r"source the workspace's install/setup\.bash"):
        started(is_installed=lambda name: name != "sam2_ros")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"log_level": "loud"}, "log_level:=loud: expected one of debug, info"),
        ({"image_topic": "/a//b"}, "image_topic:=/a//b: expected names of letters"),
        ({"image_topic": "/1st/image"}, "image_topic:=/1st/image: expected names"),
        ({"depth_topic": "depth image"}, "depth_topic:=depth image: expected names"),
        ({"click_topic": "/clicks/"}, "click_topic:=/clicks/: expected names"),
        ({"camera_info_topic": "/"}, "camera_info_topic:=/: expected names"),
        ({"namespace": "my robot"}, "namespace:=my robot: expected names"),
        ({"namespace": "a//b"}, "namespace:=a//b: expected names"),
        ({"checkpoint": "~/no such file.pt"}, "checkpoint:=~/no such file.pt: No such file"),
        ({"checkpoint": "/dev/zero"}, "checkpoint:=/dev/zero: expected a file, this is a device"),
        ({"params_file": "/nope.yaml"}, "params_file:=/nope.yaml: No such file"),
        ({"follow": "person", "detections_topic": "/boxes"}, "follow:=person needs depth images"),
        ({"follow": "person", "camera": "usb", "detections_topic": "/b"}, "follow:=person needs depth images"),
        ({"follow": "person", "camera": "oak", "use_depth": "no"}, "follow:=person needs depth images"),
        ({"follow": "person", "camera": "oak"}, "follow:=person needs a detector"),
        ({"camera": "kinect"}, "camera:=kinect: expected one of realsense, orbbec, zed, oak, usb"),
        ({"camera": "zed", "cameras": "left,right"}, "camera:=zed is one camera and cameras:=left,right several"),
        *(({name: "maybe"}, f"{name}:=maybe: expected true") for name in (*SWITCH_PARAMETERS, "rviz", "rqt_click")),
        *(({"cameras": text}, f"cameras:={text}: expected") for text in ("l,l", "l,,r", "l/eye", "1st", ",")),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(given: dict[str, str], why: str) -> None:
    with pytest.raises(LaunchArgumentError) as error:
        started(**given)
    assert str(error.value).startswith(why) and "\n" not in str(error.value)


def test_topics_that_ros_takes_are_taken() -> None:
    for topic in ("image", "~/image", "/camera/image_raw", "left_eye/image2", "_hidden/image"):
        assert dict(node(image_topic=topic).remappings)["image"] == topic


def test_two_cameras_cannot_share_a_topic() -> None:
    value = {**DEFAULTS, "cameras": "left,right", "image_topic": "/camera/image_raw"}
    with pytest.raises(LaunchArgumentError, match=r"put \{camera\} into it"):
        check_shared_topics(value)
    check_shared_topics({**value, "cameras": "only"})


def test_following_needs_the_detectors_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    given = {"follow": "person,dog", "camera": "realsense", "detections_topic": "/boxes"}
    with pytest.raises(LaunchArgumentError, match=r"follow:= needs .*sudo apt install ros-jazzy-vision-msgs$"):
        started(is_installed=lambda name: name != "vision_msgs", **given)
    settings = overrides(node(**given))
    assert (settings["detection_mode"], settings["detection_classes"]) == ("add", "person,dog")
    assert settings["use_depth"] is True


# Paths -------------------------------------------------------------------------------------------------------------


def test_paths_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.yaml").write_text("/**:\n  ros__parameters:\n    max_rate_hz: 5.0\n")
    (tmp_path / "my.pt").write_bytes(b"weights")
    program = node(params_file="~/my.yaml", checkpoint="~/my.pt")
    assert program.parameters == (
        str(ROOT / "config" / "sam2_node.yaml"),
        str(tmp_path / "my.yaml"),
        {"checkpoint": str(tmp_path / "my.pt")},
    )


# Log level and environment -----------------------------------------------------------------------------------------


def test_the_log_level_is_that_of_our_node_alone() -> None:
    # `--log-level debug` would be for the middleware too, which then writes thousands of lines.
    assert node(log_level="debug").arguments == ("--ros-args", "--log-level", "sam2_node:=debug")


def test_every_process_gets_the_fast_dds_profile_and_nobody_else() -> None:
    profile = dict.fromkeys(FAST_DDS_PROFILE_VARIABLES, str(ROOT / "config" / "fastdds.xml"))
    assert [program.environment for program in started(rviz="true", rqt_click="true")] == [profile] * 3


@pytest.mark.parametrize("variable", FAST_DDS_PROFILE_VARIABLES)
def test_a_profile_of_the_user_stays(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "mine.xml")
    assert node().environment == {}


# Cameras -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CAMERAS)
def test_a_preset_gives_topics_and_settings(name: str) -> None:
    preset, program = CAMERAS[name], node(camera=name)
    remapped = dict(program.remappings)
    assert remapped["image"] == preset.image_topic
    assert remapped["camera_info"] == preset.camera_info_topic
    assert remapped["depth"] == (preset.depth_topic or "depth")
    expected = dict(preset.parameters) | ({"use_depth": True} if preset.depth_topic else {})
    assert overrides(program) == expected
    assert set(preset.parameters) <= {spec.name for spec in schema()}
    by_name = {spec.name: spec for spec in schema()}
    assert all(by_name[key].check(value) == value for key, value in preset.parameters.items())


def test_the_table_of_cameras_in_the_docs_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): cells for cells in (line.split("|") for line in text.splitlines()) if len(cells) == 7}
    for name, preset in CAMERAS.items():
        _, _, driver, images, depth, parameters, _ = rows[name]
        assert all(f"`{command}`" in driver for command in preset.driver.split(", or "))
        assert images.strip() == f"`{preset.image_topic}`"
        assert depth.strip() == (f"`{preset.depth_topic}`" if preset.depth_topic else "none")
        said = {key: value for key, value in preset.parameters.items() if key != "image_reliability"}
        shown = ", ".join(f"`{key}` {str(value).lower()}" for key, value in said.items())
        assert parameters.strip() == shown
        assert preset.parameters["image_reliability"] == "best_effort", "the page says so of all"


def test_what_is_given_beats_the_preset() -> None:
    remapped = dict(node(camera="realsense", camera_info_topic="/mine").remappings)
    assert (remapped["image"], remapped["camera_info"]) == (CAMERAS["realsense"].image_topic, "/mine")
    other = node(camera="realsense", image_topic="/d435/color/image_raw")
    assert dict(other.remappings)["depth"] == "depth", "the preset's depth is not of these images"
    assert dict(other.remappings)["camera_info"] == "/d435/color/camera_info"
    assert overrides(node(camera="realsense", use_depth="false"))["use_depth"] is False


def test_a_copy_of_the_default_file_leaves_the_preset_alone_and_an_edited_one_does_not(tmp_path: Path) -> None:
    default = ROOT / "config" / "sam2_node.yaml"
    assert overrides(node(camera="zed", params_file=str(default))) == overrides(node(camera="zed"))
    edited = tmp_path / "edited.yaml"
    edited.write_text(default.read_text(encoding="utf-8").replace("depth_slop_s: 0.05", "depth_slop_s: 0.3"))
    settings = overrides(node(camera="zed", params_file=str(edited)))
    assert "depth_slop_s" not in settings and settings["rectified"] is True


def test_launching_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, sam2_ros.bringup.arguments; print(*sys.modules)"  # ros2 launch may run in a Python without them
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "cv2", "rclpy"} & set(loaded.stdout.split())
