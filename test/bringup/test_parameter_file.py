"""Parameter files are looked at before anything starts: what rcl would take for no file at all is rejected."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sam2_ros.bringup.parameter_file import MAX_BYTES, LaunchArgumentError, matches, read_parameter_file

GOOD = "/**:\n  ros__parameters:\n    model: nano\n"


def read(path: Path | str, *nodes: str) -> tuple[Path, dict]:
    return read_parameter_file("params_file", str(path), nodes or ("/sam2_node",))


def written(folder: Path, text: str) -> Path:
    (folder / "my.yaml").write_text(text)
    return folder / "my.yaml"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no ros__parameters in it"),
        ("model: nano\n", "no ros__parameters in it"),
        ("- model\n", "no ros__parameters in it"),
        ("/**:\n  model: nano\n", "no ros__parameters in it"),
        ("/**: [1\n", "is no YAML"),
        ("/camera:\n  ros__parameters:\n    fps: 30\n", "is for /camera and not for /sam2_node: name the section /**"),
        ("#" * (MAX_BYTES + 1), "expected a YAML file of at most"),
    ],
)
def test_a_file_without_our_parameters_is_rejected(text: str, why: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(LaunchArgumentError) as error:
        read(path)
    assert str(error.value).startswith(f"params_file:={path}") and why in str(error.value)


def test_what_is_no_file_is_rejected_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path, why in (
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path / "pipe", "expected a file, this is a device, a pipe"),
        (tmp_path, "this is a folder"),
        ("~nobody_of_that_name/my.yaml", "expected the path of a file"),
        ("/dev/zero", "expected a file"),
        (tmp_path / "my.yaml" / "below", "No such file|Not a directory"),
    ):
        with pytest.raises(LaunchArgumentError, match=why):
            read(path)


def test_an_unreadable_file_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path, **_options: str) -> str:  # root may read every file, so its mode would not do
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    path = written(tmp_path, GOOD)
    monkeypatch.setattr(Path, "read_text", deny)
    with pytest.raises(LaunchArgumentError, match="cannot be read: Permission denied"):
        read(path)


def test_a_file_that_is_no_text_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(LaunchArgumentError, match="cannot be read: 'utf-8'"):
        read(tmp_path / "my.yaml")


def test_parameters_are_found_by_their_full_names(tmp_path: Path) -> None:
    nested = "    qos_overrides:\n      /image:\n        depth: 3\n"
    other = "left:\n  sam2_node:\n    ros__parameters: {device: cpu}\n"
    path = written(tmp_path, GOOD + nested + other)
    assert read(path) == (path, {"model": "nano", "qos_overrides./image.depth": 3})
    assert read(path, "/left/sam2_node")[1] == {"model": "nano", "qos_overrides./image.depth": 3, "device": "cpu"}


def test_each_node_of_the_process_must_be_meant(tmp_path: Path) -> None:
    path = written(tmp_path, "/left/sam2_node:\n  ros__parameters:\n    model: nano\n")
    assert read(path, "/left/sam2_node")[1] == {"model": "nano"}
    with pytest.raises(LaunchArgumentError, match="not for /right/sam2_node"):
        read(path, "/left/sam2_node", "/right/sam2_node")


@pytest.mark.parametrize(
    ("section", "node_name", "meant"),
    [
        ("/**", "/sam2_node", True),
        ("/**", "/robot/left/sam2_node", True),
        ("/*", "/sam2_node", True),
        ("/*", "/left/sam2_node", False),
        ("/**/sam2_node", "/sam2_node", True),
        ("/**/sam2_node", "/robot/left/sam2_node", True),
        ("/*/sam2_node", "/left/sam2_node", True),
        ("sam2_node", "/sam2_node", True),
        ("sam2_node", "/left/sam2_node", False),
        ("/left/sam2_node", "/left/sam2_node", True),
        ("/sam2.node", "/sam2_node", False),
    ],
)
def test_sections_and_their_wildcards(section: str, node_name: str, meant: bool) -> None:
    assert matches(section, node_name) is meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a {ros__parameters: {model: nano}}\nb: *a\n", "has YAML aliases"),
        ("a: &a [x, x]\n" + "".join(f"k{n}: &k{n} [*k{n - 1}, *k{n - 1}]\n" for n in range(1, 40)), "has YAML aliases"),
        ("[" * 100_000, "is nested more than 64 deep"),
        ("{a: " * 1000, "is nested more than 64 deep"),
    ],
)
def test_what_ros_does_not_read_or_has_no_end_is_rejected(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(LaunchArgumentError, match=why):
        read_parameter_file("params_file", str(path), ["/sam2_node"])
