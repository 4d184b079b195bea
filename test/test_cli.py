"""The command itself: its help, its version, and the arguments that argparse or a shell would get wrong."""

from __future__ import annotations

import argparse
import re
from importlib import metadata
from pathlib import Path

import pytest

from sam2_ros import cli
from sam2_ros.commands import segment
from sam2_ros.resources import share_path


def test_names_keep_their_capitals_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name, summary in cli._COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        assert f"{summary[0].upper()}{summary[1:]}." in said, name


def test_the_version_is_that_of_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = re.search(r"<version>(.+)</version>", share_path("package.xml").read_text(encoding="utf-8"))
    assert written
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sam2-ros {written[1]}\n"

    def not_installed(_name: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", not_installed)  # as in a workspace of colcon
    assert cli.version() == written[1]


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        (["--prompt", "-5,10;20,30"], ["--prompt=-5,10;20,30"]),
        (["--prompt", "-.5,10"], ["--prompt=-.5,10"]),
        (["--prompt", "mug:5,10", "--prompt", "-5,10"], ["--prompt", "mug:5,10", "--prompt=-5,10"]),
        (["--prompt", "5,10", "--out", "x"], ["--prompt", "5,10", "--out", "x"]),
        (["--prompt", "--everything"], ["--prompt", "--everything"]),
        (["--max-frames", "-5"], ["--max-frames", "-5"]),
    ],
)
def test_a_prompt_may_begin_with_a_minus(typed: list[str], understood: list[str]) -> None:
    assert cli.join_prompts(typed) == understood


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """What the command ``segment`` is run with."""
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(segment, "run", lambda args: seen.append(args) or 0)
    return seen


def test_a_prompt_with_a_minus_reaches_the_command(seen: list[argparse.Namespace], tmp_path: Path) -> None:
    assert cli.main(["segment", "a.png", "--out", str(tmp_path), "--prompt", "-5,10;20,30"]) == 0
    assert seen[0].prompt == ["-5,10;20,30"]


def test_paths_begin_in_the_home_folder_with_a_tilde(
    seen: list[argparse.Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["segment", "~/a.png", "--out=~/out", "--checkpoint=~/w.pt", "--prompt", "1,2"]) == 0
    assert (seen[0].image, seen[0].out, seen[0].checkpoint) == (
        tmp_path / "a.png",
        tmp_path / "out",
        tmp_path / "w.pt",
    )
