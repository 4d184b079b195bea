"""`sam2-ros annotate`: what it refuses before it starts, and where it listens."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from annotate_rig import make_project
from tiny_model import tiny_model

from sam2_ros.annotate.project import Project
from sam2_ros.cli import main
from sam2_ros.commands import annotate


class FakeServer:
    """Ends at once."""

    def __init__(self, config: Any, editor: Any, address: str, opens: bool) -> None:
        self.editor, self.address = editor, address

    def run(self, sockets: list[socket.socket]) -> None:
        FakeServer.seen = (self.address, sockets[0].getsockname())
        self.editor.close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path / "p").close()
    monkeypatch.setattr(annotate, "_make_server", FakeServer)
    monkeypatch.setattr("sam2_ros.tracking.loading.load_network", lambda **_: tiny_model())
    return tmp_path / "p"


def test_it_listens_on_this_machine_alone_with_a_new_token_each_time(project: Path, capsys) -> None:
    addresses = []
    for _ in range(2):
        assert main(["annotate", str(project)]) == 0
        address, (host, port) = FakeServer.seen
        assert host == "127.0.0.1" and address.startswith(f"http://127.0.0.1:{port}/")
        addresses.append(address.split("/")[3])
    assert addresses[0] != addresses[1] and len(addresses[0]) >= 32
    assert capsys.readouterr().err == ""


def test_another_host_is_warned_of(project: Path, capsys) -> None:
    assert main(["annotate", str(project), "--host", "0.0.0.0"]) == 0
    assert "WARNING: listening on 0.0.0.0" in capsys.readouterr().err


def test_what_cannot_be_served_is_said_in_a_line(project: Path, tmp_path: Path, capsys) -> None:
    Project.create(tmp_path / "empty").close()
    taken = socket.create_server(("127.0.0.1", 0))
    port = str(taken.getsockname()[1])
    for arguments, reason in (
        ([str(tmp_path / "none")], "is no project"),
        ([str(tmp_path / "empty")], "has no recording"),
        ([str(project), "--port", port], f"cannot listen on 127.0.0.1, port {port}"),
        ([str(project), "--port", "70000"], "--port must be 0 to 65535"),
        ([str(project), "--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
    ):
        assert main(["annotate", *arguments]) == 2
        said = capsys.readouterr().err
        assert reason in said and said.startswith("sam2-ros annotate: ") and said.count("\n") == 1
    taken.close()
    with Project.open(project, "the other one"):
        assert main(["annotate", str(project)]) == 2
    assert "the other one" in capsys.readouterr().err
