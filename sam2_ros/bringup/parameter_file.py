"""The file of ``params_file:=``, looked at before anything starts: rcl takes a wrong one for no file at all."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1_000_000  # of a parameter file; one of ours has 10 kB
MAX_DEPTH = 64  # of what is nested in it: namespaces and names of parameters
SECTION = "ros__parameters"


class LaunchArgumentError(ValueError):
    """An argument of a launch file that cannot be used; one line that says what came and what was expected."""


def existing_path(name: str, text: str) -> Path:
    """The absolute path of a file or folder, with ``~`` expanded: nobody else does that for ``name:=~/file``.

    Raises:
        LaunchArgumentError: nothing is there, or it is a device, a FIFO or the like, which would block its reader.
    """
    try:
        path = Path(text).expanduser().absolute()
        mode = path.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no such user; ValueError: a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise LaunchArgumentError(f"{name}:={text}: {reason}; expected the path of a file that exists") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise LaunchArgumentError(f"{name}:={text}: expected a file, this is a device, a pipe or a socket")
    return path


def read_parameter_file(name: str, text: str, node_names: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Check a parameter file for some nodes.

    Args:
        name: of the launch argument, for messages.
        text: the path as it was given.
        node_names: full names of the nodes that get the file, such as /left/sam2_node.

    Returns:
        The file's absolute path, and the parameters that it sets for any of these nodes, by their full names.

    Raises:
        LaunchArgumentError: there is no such file, it cannot be read, or nothing in it is for one of these nodes.
    """
    path = existing_path(name, text)
    sections = dict(_sections(_load(path, f"{name}:={text}")))
    if not sections:
        raise LaunchArgumentError(f"{name}:={text}: no {SECTION} in it; expected\n/**:\n  {SECTION}:\n    model: nano")
    found: dict[str, Any] = {}
    for node_name in node_names:
        ours = [values for section, values in sections.items() if matches(section, node_name)]
        if not ours:
            raise LaunchArgumentError(
                f"{name}:={text} is for {', '.join(sections)} and not for {node_name}: name the section /** or "
                f"{node_name}"
            )
        for values in ours:
            found |= dict(_flat(values))
    return path, found


def matches(section: str, node_name: str) -> bool:
    """Whether a section of a parameter file is for the node: ``*`` is one part of a name, ``**`` any number."""
    pattern = ""
    for part in section.strip("/").split("/"):
        pattern += "(/[^/]+)*" if part == "**" else "/" + re.escape(part).replace(r"\*", "[^/]*")
    return re.fullmatch(pattern, node_name) is not None


def _load(path: Path, shown: str) -> Any:
    try:
        if path.is_dir():
            raise LaunchArgumentError(f"{shown}: expected a YAML file, this is a folder")
        if path.stat().st_size > MAX_BYTES:
            raise LaunchArgumentError(f"{shown}: expected a YAML file of at most {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        _check_events(text, shown)
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchArgumentError(f"{shown}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise LaunchArgumentError(f"{shown}: is no YAML: {' '.join(str(error).split())}") from None


def _check_events(text: str, shown: str) -> None:
    """Reject what ROS does not read, and what would take this reader for ever: a value may stand for millions."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise LaunchArgumentError(
                f"{shown}: has YAML aliases (*name), which ROS does not read: write the values out"
            )
        if depth > MAX_DEPTH:
            raise LaunchArgumentError(
                f"{shown}: expected parameters of nodes, this is nested more than {MAX_DEPTH} deep"
            )


def _sections(document: Any, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Node names, which may be nested by namespace, with their parameters."""
    if not isinstance(document, Mapping):
        return
    for key, value in document.items():
        if key == SECTION:
            yield prefix or "/", value if isinstance(value, Mapping) else {}
        else:
            yield from _sections(value, f"{prefix}/{str(key).strip('/')}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested parameters with their full names, as ``qos_overrides./image.depth``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
