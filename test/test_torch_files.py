"""A full disk is said as such, and nobody is advised to let a file run code."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sam2_ros.model.checkpoint_files import CheckpointError, read_state_dict
from sam2_ros.model.efficientnet_lite import EfficientNetLite
from sam2_ros.session.persistence import SessionFileError, read_session
from sam2_ros.torch_files import failed_writes_as_os_errors, why_unreadable
from sam2_ros.training.pretrained import load_imagenet_lite0


class SmallDisk(io.RawIOBase):
    """A file with room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return memoryview(data).nbytes


@pytest.mark.parametrize("room", [0, 700, 5000, 57_088, 200_000])
@pytest.mark.parametrize("buffered", [False, True])
def test_a_full_disk_is_an_os_error_wherever_it_ends(room: int, buffered: bool) -> None:
    disk: Any = SmallDisk(room)
    with (
        pytest.raises(OSError, match="No space left on device"),
        io.BufferedWriter(disk) if buffered else disk as file,
        failed_writes_as_os_errors(file) as target,
    ):
        torch.save({"a": torch.zeros(100_000)}, target)


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(Exception, match="lambda"), failed_writes_as_os_errors(io.BytesIO()) as target:
        torch.save({"a": lambda: None}, target)


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def read_a_pretrained_trunk(path: Path) -> None:
    load_imagenet_lite0(EfficientNetLite(), path)


@pytest.mark.parametrize(
    ("read", "kind"),
    [(read_session, SessionFileError), (read_state_dict, CheckpointError), (read_a_pretrained_trunk, ValueError)],
)
@pytest.mark.parametrize("content", [{"a": RunsCode()}, {"a": Path("x")}, RunsCode()], ids=["in it", "a path", "alone"])
def test_no_answer_advises_to_switch_the_protection_off(
    tmp_path: Path, read: Callable[[Path], Any], kind: type[Exception], content: Any
) -> None:
    path = tmp_path / "file.pt"
    torch.save(content, path)
    with pytest.raises(kind) as caught:
        read(path)
    text = str(caught.value)
    assert "file.pt" in text and "nothing" in text and "was run" in text and "\n" not in text
    assert not any(word in text.lower() for word in ("weights_only", "weights only", "still be loaded"))


def test_other_reasons_are_passed_on_in_one_line() -> None:
    assert why_unreadable(ValueError("first\nsecond")) == "ValueError: first"
    assert why_unreadable(EOFError()) == "EOFError"
