"""The launch file, run against stand-ins for ROS' launch packages (they have no wheels), which record what they get."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LAUNCH_FILE = ROOT / "launch" / "sam2.launch.py"
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
            name: recorder(name) for name in ("DeclareLaunchArgument", "OpaqueFunction", "SetEnvironmentVariable")
        },
        "launch.launch_description_entity": {"LaunchDescriptionEntity": object},
        "launch.substitutions": {"LaunchConfiguration": StandInConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": recorder("Node")},
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    for variable in PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def described() -> list[Any]:
    return list(runpy.run_path(str(LAUNCH_FILE))["generate_launch_description"]())


def launched_node(**given: str) -> Any:
    description = described()
    arguments = {a.args[0]: a.default_value for a in description if a.kind == "DeclareLaunchArgument"}
    assert set(given) <= set(arguments), "not an argument of the launch file"
    (opaque,) = (a for a in description if a.kind == "OpaqueFunction")
    (node,) = opaque.function({**arguments, **given})
    return node


def test_what_is_not_given_is_left_to_the_params_file_and_the_node() -> None:
    node = launched_node()
    assert node.parameters == [str(ROOT / "config" / "sam2_node.yaml"), {}]
    assert Path(node.parameters[0]).is_file()


def test_given_arguments_reach_the_node() -> None:
    node = launched_node(
        namespace="left",
        image_topic="/camera/image_raw",
        click_topic="/camera/image_raw_mouse_left",
        model="sam2.1_hiera_tiny",
        device="cuda:0",
        use_sim_time="true",
        params_file="mine.yaml",
        log_level="debug",
    )
    overrides = {"model": "sam2.1_hiera_tiny", "device": "cuda:0", "use_sim_time": True}
    assert node.parameters == ["mine.yaml", overrides]
    assert node.remappings == [("image", "/camera/image_raw"), ("click", "/camera/image_raw_mouse_left")]
    assert node.namespace == "left"
    assert node.arguments == ["--ros-args", "--log-level", "debug"]


def test_overridden_parameters_exist_in_the_node() -> None:
    known = yaml.safe_load((ROOT / "config" / "sam2_node.yaml").read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    overridden = runpy.run_path(str(LAUNCH_FILE))["PARAMETERS"]
    assert set(overridden) <= set(known), "the node would ignore these silently"


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
