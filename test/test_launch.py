"""The launch files make actions of what ``sam2_ros.bringup`` decides, and no more.

They run against stand-ins for ROS' launch packages, which have no wheels; the stand-ins record what they get.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sam2_ros.bringup.arguments import ARGUMENTS

ROOT = Path(__file__).parent.parent
LAUNCH_FILE = ROOT / "launch" / "sam2.launch.py"
MULTI_CAMERA = ROOT / "launch" / "multi_camera.launch.py"
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


class PackageNotFoundError(KeyError):
    """As of ament_index_python."""


def package_prefix(package: str) -> str:
    if package != "sam2_ros":
        raise PackageNotFoundError(package)
    return str(ROOT)


def recorder(kind: str) -> Any:
    return lambda *args, **kwargs: SimpleNamespace(kind=kind, args=args, **kwargs)


@pytest.fixture(autouse=True)
def launch_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, dict[str, Any]] = {
        "ament_index_python.packages": {
            "get_package_prefix": package_prefix,
            "PackageNotFoundError": PackageNotFoundError,
        },
        "launch": {"LaunchContext": dict, "LaunchDescription": list},
        "launch.actions": {
            name: recorder(name) for name in ("DeclareLaunchArgument", "IncludeLaunchDescription", "OpaqueFunction")
        },
        "launch.launch_description_sources": {"PythonLaunchDescriptionSource": str},
        "launch.launch_description_entity": {"LaunchDescriptionEntity": object},
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


def described(file: Path) -> list[Any]:
    return list(runpy.run_path(str(file))["generate_launch_description"]())


def declared(file: Path) -> dict[str, str]:
    return {a.args[0]: a.default_value for a in described(file) if a.kind == "DeclareLaunchArgument"}


def launched(file: Path = LAUNCH_FILE, *, ros_namespace: str = "", **given: str) -> list[Any]:
    """What the launch file starts when it is given these arguments in that pushed namespace."""
    assert set(given) <= set(declared(file)), "not an argument of the launch file"
    (opaque,) = (a for a in described(file) if a.kind == "OpaqueFunction")
    pushed = {"ros_namespace": ros_namespace} if ros_namespace else {}
    context = SimpleNamespace(launch_configurations={**declared(file), **pushed, **given})
    return list(opaque.function(context))


def test_a_program_becomes_a_node() -> None:
    (node,) = launched(namespace="left", image_topic="/camera/image_raw", checkpoint=__file__)
    assert (node.package, node.executable, node.name) == ("sam2_ros", "sam2_node", "sam2_node")
    assert node.namespace == "/left"
    assert node.parameters == [str(ROOT / "config" / "sam2_node.yaml"), {"checkpoint": __file__}]
    assert ("image", "/camera/image_raw") in node.remappings
    assert node.arguments == ["--ros-args", "--log-level", "left.sam2_node:=info"]
    assert node.output == "screen"


def test_the_pushed_namespace_of_an_including_file_counts() -> None:
    (node,) = launched(ros_namespace="/robot", namespace="left")
    assert node.namespace == "/robot/left"
    (node,) = launched()
    assert node.namespace == "/", "absolute, or launch_ros would put the pushed one before it once more"


def test_a_missing_package_ends_the_launch_before_anything_starts() -> None:
    for argument in ("rviz", "rqt_click"):
        with pytest.raises(ValueError, match=f"{argument}:=true needs the package .* sudo apt install"):
            launched(**{argument: "true"})


def test_the_fast_dds_profile_reaches_our_processes_alone() -> None:
    (node,) = launched()
    assert node.additional_env == dict.fromkeys(PROFILE_VARIABLES, str(ROOT / "config" / "fastdds.xml"))
    for file in (LAUNCH_FILE, MULTI_CAMERA):
        kinds = {action.kind for action in described(file)}
        assert kinds == {"DeclareLaunchArgument", "OpaqueFunction"}, "others would reach the including file's nodes"


def test_every_launch_file_shows_every_argument() -> None:
    names = [name for name, _, _ in ARGUMENTS]
    assert list(declared(LAUNCH_FILE)) == names
    assert list(declared(MULTI_CAMERA)) == names, "--show-args must name what is passed on"
    assert declared(MULTI_CAMERA)["image_topic"] == "/{camera}/image_raw"


def test_several_cameras_are_one_process() -> None:
    (include,) = launched(MULTI_CAMERA, cameras="front, back", depth_topic="/{camera}/depth/image_raw", device="cpu")
    assert include.args[0] == str(LAUNCH_FILE)
    (node,) = launched(**dict(include.launch_arguments))
    assert node.name is None
    assert node.parameters[1] == {"cameras": "front, back", "device": "cpu", "use_depth": True}
    assert ("/back/image", "/back/image_raw") in node.remappings
    with pytest.raises(ValueError, match=r"put \{camera\} into it"):
        launched(MULTI_CAMERA, image_topic="/camera/image_raw")
