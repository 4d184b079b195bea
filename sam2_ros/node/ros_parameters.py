"""The schema of ``parameters`` on a ROS node: declaration, reading, and rejecting changes that cannot take effect."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.context import Context
from rclpy.node import Node

from sam2_ros.session.parameter_spec import ParameterError, ParameterSpec
from sam2_ros.session.parameters import NodeParameters, parse, schema

LARGEST_INTEGER = 2**63 - 1


def declare(node: Node) -> None:
    """Declare every parameter with its description and range. Values of the wrong type make rclpy raise."""
    for spec in schema():
        node.declare_parameter(spec.name, spec.default, _descriptor(spec))
    if unknown := unknown_overrides(node):
        node.get_logger().warning(describe_unknown(unknown))


def unknown_overrides(node: Node) -> list[str]:
    """Parameters that files or arguments set for this node and that are not declared: rclpy ignores them silently."""
    given = getattr(node, "_parameter_overrides", {})  # no release so far has a public way to read it
    return sorted(name for name in given if not node.has_parameter(name))


def describe_unknown(names: list[str]) -> str:
    """Which names have no effect, and what may have been meant."""
    known = [spec.name for spec in schema()]
    shown = []
    for name in names:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        hint = "image_reliability and output_reliability" if name.startswith("qos_overrides.") else "".join(close)
        shown.append(f"{name} (see {hint})" if hint else name)
    return f"no parameters of this node, so without effect: {', '.join(shown)}; docs/parameters.md has all"


def read_arguments(context: Context | None) -> tuple[str, str]:
    """The process' namespace and the parameter ``cameras``, read by a temporary node."""
    probe = rclpy.create_node("sam2_node", context=context, enable_rosout=False, start_parameter_services=False)
    try:
        text = probe.declare_parameter("cameras", parse({}).cameras).value
        return probe.get_namespace(), text
    finally:
        probe.destroy_node()


def init_ros(args: list[str] | None) -> bool:
    """``rclpy.init``; False, with one line on standard error, for an argument that rcl cannot use.

    Such an argument is a parameter file, a name or a log level. rcl's message names it, and a line of rcl's source,
    which is removed.
    """
    try:
        rclpy.init(args=args)
    except Exception as error:
        text = re.sub(r", at \S+:\d+", "", str(error)).replace("failed to initialize rcl: ", "")
        text = " ".join(text.replace(" Error: error not set", "").split())
        print(f"sam2_node: {text}", file=sys.stderr, flush=True)
        return False
    return True


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=spec.description)
    if spec.choices:
        descriptor.additional_constraints = f"one of: {spec.range_text()}"
    if spec.minimum is None:
        return descriptor
    if isinstance(spec.default, float):
        assert spec.maximum is not None, f"{spec.name}: a range of doubles needs both ends"
        descriptor.floating_point_range = [FloatingPointRange(from_value=spec.minimum, to_value=spec.maximum)]
    else:
        highest = LARGEST_INTEGER if spec.maximum is None else int(spec.maximum)
        descriptor.integer_range = [IntegerRange(from_value=int(spec.minimum), to_value=highest, step=1)]
    return descriptor


def read(node: Node) -> NodeParameters:
    """The node's values, checked; ParameterError when one of them cannot be used."""
    return parse({spec.name: node.get_parameter(spec.name).value for spec in schema()})


class ParameterGuard:
    """Keeps ``current`` in step with the node and rejects changes that are wrong or would have no effect.

    ``is_configured`` tells whether the node holds a model; then only *live* parameters may change.
    """

    def __init__(self, node: Node, is_configured: Callable[[], bool]) -> None:
        self._is_configured = is_configured
        self._live = {spec.name: spec.live for spec in schema()}
        self.current = read(node)
        node.add_on_set_parameters_callback(self._on_set)

    def _on_set(self, changes: list[Any]) -> SetParametersResult:
        ours = {change.name: change.value for change in changes if change.name in self._live}
        fixed = [name for name, value in ours.items() if not self._live[name] and value != getattr(self.current, name)]
        if fixed and self._is_configured():
            reason = f"{', '.join(fixed)}: takes effect when the node is configured; deactivate and clean it up first"
            return SetParametersResult(successful=False, reason=reason)
        values = {name: getattr(self.current, name) for name in self._live}
        try:
            self.current = parse({**values, **ours})
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)
