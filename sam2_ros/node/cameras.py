"""The nodes of one process: one, or one for each name in the parameter ``cameras``, which then share the weights."""

from __future__ import annotations

import functools

import rclpy
from rclpy.context import Context

from sam2_ros.node.sam2_node import Sam2Node
from sam2_ros.session.model_loading import SharedNetworks, load_configured_tracker
from sam2_ros.session.parameters import camera_names, parse
from sam2_ros.tracking.concurrency import TaskThread


def make_nodes(context: Context | None = None) -> list[Sam2Node]:
    """Make what the process' arguments ask for. ParameterError when ``cameras`` makes no sense."""
    namespace, text = _read_arguments(context)
    names = camera_names(text)
    if not names:
        return [Sam2Node(context=context)]
    load = functools.partial(load_configured_tracker, networks=SharedNetworks())
    model_thread = TaskThread()
    return [
        # As arguments, because those of the process (__ns) come before what the constructor says, but behind these.
        Sam2Node(
            tracker_factory=load,
            model_thread=model_thread,
            context=context,
            cli_args=["--ros-args", "-r", f"__ns:={namespace.rstrip('/')}/{name}"],
        )
        for name in names
    ]


def _read_arguments(context: Context | None) -> tuple[str, str]:
    """The process' namespace and ``cameras``, by a node that is gone again at once."""
    probe = rclpy.create_node("sam2_node", context=context, enable_rosout=False, start_parameter_services=False)
    try:
        text = probe.declare_parameter("cameras", parse({}).cameras).value
        return probe.get_namespace(), text
    finally:
        probe.destroy_node()
