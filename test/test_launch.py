"""The launch file, run against stand-ins for ROS' launch packages (they have no wheels), which record what they get."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sam2_ros.session.parameters import schema

ROOT = Path(__file__).parent.parent
LAUNCH_FILE = ROOT / "launch" / "sam2.launch.py"
MULTI_CAMERA = ROOT / "launch" / "multi_camera.launch.py"
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def recorder(kind: str) -> Any:
    return lambda *args, **kwargs: SimpleNamespace(kind=kind, args=args, **kwargs)


class StandInConfiguration:
    """A LaunchConfiguration; here the context is just a dict of the arguments."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


@pytest.fixture(autouse=True)
def launch_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, dict[str, Any]] = {
        "ament_index_python.packages": {"get_package_share_directory": lambda _package: str(ROOT)},
        "launch": {"LaunchContext": dict, "LaunchDescription": list},
        "launch.actions": {
            name: recorder(name)
            for name in (
                *("DeclareLaunchArgument", "IncludeLaunchDescription", "OpaqueFunction"),
                "SetEnvironmentVariable",
            )
        },
        "launch.launch_description_sources": {"PythonLaunchDescriptionSource": str},
        "launch.launch_description_entity": {"LaunchDescriptionEntity": object},
        "launch.substitutions": {"LaunchConfiguration": StandInConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": recorder("Node")},
        "launch_ros.parameter_descriptions": {"ParameterValue": lambda value, value_type: value_type(value)},
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    for variable in PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def described(file: Path = LAUNCH_FILE) -> list[Any]:
    return list(runpy.run_path(str(file))["generate_launch_description"]())


def launched(file: Path = LAUNCH_FILE, **given: str) -> list[Any]:
    """What the launch file starts when it is given these arguments."""
    description = described(file)
    arguments = {a.args[0]: a.default_value for a in description if a.kind == "DeclareLaunchArgument"}
    assert set(given) <= set(arguments), "not an argument of the launch file"
    (opaque,) = (a for a in description if a.kind == "OpaqueFunction")
    return list(opaque.function({**arguments, **given}))


def launched_node(**given: str) -> Any:
    return launched(**given)[0]


def test_what_is_not_given_is_left_to_the_params_file_and_the_node() -> None:
    node = launched_node()
    assert node.parameters == [str(ROOT / "config" / "sam2_node.yaml")]
    assert Path(node.parameters[0]).is_file()


def test_given_arguments_reach_the_node() -> None:
    node = launched_node(
        namespace="left",
        image_topic="/camera/image_raw",
        image_transport="compressed",
        depth_topic="/camera/depth/image_raw",
        click_topic="/camera/image_raw_mouse_left",
        model="sam2.1_hiera_tiny",
        device="cuda:0",
        use_sim_time="true",
        params_file="mine.yaml",
        log_level="debug",
    )
    overrides = {
        "image_transport": "compressed",
        "model": "sam2.1_hiera_tiny",
        "device": "cuda:0",
        "use_sim_time": True,
        "use_depth": True,  # depth_topic was given
    }
    assert node.parameters == ["mine.yaml", overrides]
    assert node.remappings == [
        ("image", "/camera/image_raw"),
        ("camera_info", "/camera/camera_info"),
        ("depth", "/camera/depth/image_raw"),
        ("click", "/camera/image_raw_mouse_left"),
    ]
    assert node.namespace == "left"
    assert node.arguments == ["--ros-args", "--log-level", "debug"]


def test_depth_can_be_remapped_and_yet_be_off() -> None:
    assert launched_node(depth_topic="/depth", use_depth="false").parameters[1] == {"use_depth": False}


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
    node = launched_node(image_topic=image_topic, camera_info_topic=given)
    assert dict(node.remappings)["camera_info"] == camera_info


@pytest.mark.parametrize("argument", ["use_depth", "use_sim_time", "rviz", "rqt_click"])
def test_a_switch_is_true_or_false(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}:=maybe: expected true or false"):
        launched(**{argument: "maybe"})


def test_overridden_parameters_exist_in_the_node() -> None:
    launch_file = runpy.run_path(str(LAUNCH_FILE))
    ours = {*launch_file["TEXT_PARAMETERS"], *launch_file["SWITCH_PARAMETERS"]} - {"use_sim_time"}  # every node has it
    missing = ours - {spec.name for spec in schema()}
    assert not missing, "the node would ignore these silently"


def test_rviz_shows_the_node_in_its_namespace() -> None:
    _, rviz = launched(rviz="true", namespace="/left/")
    assert (rviz.package, rviz.executable) == ("rviz2", "rviz2")
    assert Path(rviz.arguments[1]).is_file()
    assert ("/sam2_node/overlay", "/left/sam2_node/overlay") in rviz.remappings
    assert ("/clicked_point", "/left/clicked_point") in rviz.remappings
    assert launched(rviz="true")[1].remappings == []


def test_rqt_click_shows_the_overlay_and_the_node_takes_its_clicks() -> None:
    node, view = launched(rqt_click="true", namespace="left")
    assert (view.package, view.arguments) == ("rqt_image_view", ["/left/sam2_node/overlay"])
    assert ("click", "/left/sam2_node/overlay_mouse_left") in node.remappings
    assert ("click", "/mine") in launched_node(rqt_click="true", click_topic="/mine").remappings


def test_nothing_is_opened_unless_asked_for() -> None:
    assert [node.executable for node in launched()] == ["sam2_node"]


def cameras(**given: str) -> dict[str, str]:
    """The arguments that sam2.launch.py gets from the one for several cameras."""
    (include,) = launched(MULTI_CAMERA, **given)
    assert include.args[0] == str(LAUNCH_FILE)
    return dict(include.launch_arguments)


def test_several_cameras_are_one_process() -> None:
    given = cameras(cameras="front, back", depth_topic="/{camera}/depth/image_raw")
    assert given == {
        "cameras": "front,back",
        "image_topic": "/{camera}/image_raw",
        "camera_info_topic": "",
        "depth_topic": "/{camera}/depth/image_raw",
    }
    (node,) = launched(**given)
    assert node.name is None  # else the parameters below would be for /sam2_node alone
    assert node.parameters[1] == {"cameras": "front,back", "use_depth": True}
    remapped = dict(node.remappings)
    assert remapped["/front/image"] == "/front/image_raw"
    assert remapped["/back/camera_info"] == "/back/camera_info"
    assert remapped["/back/depth"] == "/back/depth/image_raw"
    assert len(remapped) == 2 * len(launched_node().remappings)


def test_several_cameras_in_a_namespace_with_their_viewers() -> None:
    given = cameras(cameras="front,back")
    node, *viewers = launched(**given, namespace="robot", rviz="true", rqt_click="true")
    assert node.namespace == "robot"
    assert dict(node.remappings)["/robot/back/click"] == "/robot/back/sam2_node/overlay_mouse_left"
    assert [viewer.package for viewer in viewers] == ["rviz2", "rqt_image_view"] * 2
    assert ("/sam2_node/markers", "/robot/back/sam2_node/markers") in viewers[2].remappings


@pytest.mark.parametrize("text", ["", "left,left", "left,,right", "left/eye", "1st"])
def test_camera_names_must_be_namespaces(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"cameras:={text}: expected different names")):
        cameras(cameras=text)


def test_two_cameras_cannot_share_a_topic() -> None:
    with pytest.raises(ValueError, match=r"put \{camera\} into it"):
        cameras(image_topic="/camera/image_raw")
    assert cameras(cameras="only", image_topic="/camera/image_raw")["image_topic"] == "/camera/image_raw"


def test_the_executable_is_the_one_that_is_installed() -> None:
    node = launched_node()
    assert (node.package, node.executable) == ("sam2_ros", "sam2_node")
    assert (ROOT / "scripts" / node.executable).is_file()


def test_fast_dds_gets_its_profile() -> None:
    profiles = {a.args[0]: a.args[1] for a in described() if a.kind == "SetEnvironmentVariable"}
    assert profiles == dict.fromkeys(PROFILE_VARIABLES, str(ROOT / "config" / "fastdds.xml"))


@pytest.mark.parametrize("variable", PROFILE_VARIABLES)
def test_a_profile_of_the_user_stays(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "mine.xml")
    assert not [a for a in described() if a.kind == "SetEnvironmentVariable"]
