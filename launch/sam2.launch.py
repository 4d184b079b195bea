"""Start the tracking node: ``ros2 launch sam2_ros sam2.launch.py image_topic:=/camera/image_raw``.

Only what is given is set: everything else keeps the value of the params file, or else the node's default. What the
arguments mean is decided by ``sam2_ros.bringup.arguments``; here it becomes actions of launch.
"""

from __future__ import annotations

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from sam2_ros.bringup.arguments import ARGUMENTS, Program, programs


def is_installed(package: str) -> bool:
    """Whether the environment that is sourced has a ROS package of that name."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def make_node(program: Program) -> Node:
    """The action that starts a program."""
    parameters = [
        # As texts, whatever they look like: launch would read a checkpoint named 1.0 as a number.
        {name: ParameterValue(given, value_type=type(given)) for name, given in source.items()}
        if isinstance(source, dict)
        else source
        for source in program.parameters
    ]
    return Node(
        package=program.package,
        executable=program.executable,
        name=program.name,
        namespace=program.namespace or "/",  # absolute: launch_ros must not join it once more
        parameters=parameters or None,
        remappings=list(program.remappings),
        arguments=list(program.arguments),
        additional_env=dict(program.environment),  # theirs alone: a SetEnvironmentVariable would reach other nodes
        output="screen",
        emulate_tty=True,
    )


def make_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Read the arguments, now that their values are known."""
    given = context.launch_configurations
    value = {name: given.get(name, default) for name, default, _ in ARGUMENTS}
    return [make_node(program) for program in programs(value, given.get("ros_namespace", ""), is_installed)]


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=make_nodes)])
