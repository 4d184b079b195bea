"""``sam2-ros demo``: what it starts, what it prints, and how it fails. The processes here are stand-ins."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from sam2_ros.commands import demo
from sam2_ros.commands.processes import Program


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.configure(parser)
    return parser.parse_args(arguments)


def command_of(args: argparse.Namespace, name: str) -> list[str]:
    return list(next(p for p in demo.programs(args) if p.name == name).command)


def test_camera_and_client_see_the_same_stream() -> None:
    args = parse("--source", "clip.mp4", "--frames", "40", "--rate-hz", "7.5", "--size", "320x240")
    expected = ["--frames", "40", "--size", "320x240", "--rate-hz", "7.5", "--source", "clip.mp4"]
    for name in ("camera", "client"):
        command = command_of(args, name)
        start = command.index("--frames")
        assert command[start : start + len(expected)] == expected


def test_every_process_is_a_module_of_this_python_with_the_same_image_topic() -> None:
    for program in demo.programs(parse()):
        assert program.command[:2] == (sys.executable, "-m")
        assert importlib.util.find_spec(program.command[2]) is not None
        assert "image:=/camera/image_raw" in program.command
    assert [p.name for p in demo.programs(parse()) if p.may_end] == ["camera"]


def test_the_node_gets_its_model(tmp_path: Path) -> None:
    node = command_of(parse("--model", "sam2.1_hiera_tiny", "--checkpoint", str(tmp_path / "tiny.pt")), "node")
    assert "model:=sam2.1_hiera_tiny" in node
    assert f"checkpoint:={tmp_path / 'tiny.pt'}" in node
    assert "zoom:=true" in command_of(parse("--zoom"), "node") and "zoom:=true" not in node
    assert not {"checkpoint:=", "model:="} & {word[: word.find("=") + 1] for word in command_of(parse(), "node")}


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ([], "nano"),
        (["--checkpoint", "mine.pt"], "mine.pt"),
        (["--model", "sam2_hiera_tiny", "--checkpoint", "mine.pt"], "sam2_hiera_tiny"),
    ],
)
def test_the_report_names_the_model(options: list[str], reported: str) -> None:
    client = command_of(parse(*options), "client")
    assert client[client.index("--model") + 1] == reported


def test_prompts_reach_the_client_also_those_that_look_like_options() -> None:
    args = parse("--prompt", "mug:320,240", "--prompt=-90,400;10,10")
    assert [a for a in command_of(args, "client") if a.startswith("--prompt")] == [
        "--prompt=mug:320,240",
        "--prompt=-90,400;10,10",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--prompt", "1,2,3"], "has 3 numbers"),
        (["--size", "640"], "expected WIDTHxHEIGHT such as 640x480"),
        (["--size", "20x20"], "48 or more each"),
        (["--rate-hz", "0"], "expected a rate of more than 0"),
        (["--rate-hz", "fast"], "got 'fast'"),
        (["--frames", "-1"], "expected a number of frames"),
        (["--frames", "100000"], "0 (all) to 99999"),
        (["--weights", "none"], "invalid choice"),
    ],
)
def test_bad_options_are_refused_before_anything_starts(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_environment_has_a_domain_and_room_for_images() -> None:
    environment = demo.ros_environment(42)
    assert environment["ROS_DOMAIN_ID"] == "42"
    assert Path(environment["FASTRTPS_DEFAULT_PROFILES_FILE"]).name == "fastdds.xml"
    assert environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == environment["FASTDDS_DEFAULT_PROFILES_FILE"]
    assert "PATH" in environment


def test_deadline_grows_with_the_stream() -> None:
    short, long = parse("--frames", "10", "--rate-hz", "10"), parse("--frames", "1000", "--rate-hz", "5")
    assert demo.default_timeout_s(long) - demo.default_timeout_s(short) == pytest.approx(3 * (200 - 1))


def stand_ins(monkeypatch: pytest.MonkeyPatch, client: str, node: str = "import signal; signal.pause()") -> None:
    programs = [Program("node", (sys.executable, "-c", node)), Program("client", (sys.executable, "-c", client))]
    monkeypatch.setattr(demo, "programs", lambda _args: programs)


def test_the_last_line_on_standard_output_is_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report, path = {"frames": 150, "mean_iou": 0.7}, tmp_path / "report.json"
    stand_ins(monkeypatch, f"print('working'); open({str(path)!r}, 'w').write({json.dumps(report)!r})")
    assert demo.run(parse("--out", str(tmp_path))) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == report
    assert "[client] working" in captured.err


def test_a_node_that_dies_ends_the_demo_with_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stand_ins(monkeypatch, "import signal; signal.pause()", node="raise SystemExit('bad parameter: model')")
    assert demo.run(parse("--out", str(tmp_path))) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "node ended with status 1" in captured.err.splitlines()[-2]
    assert "bad parameter: model" in captured.err.splitlines()[-1]


def test_an_old_report_does_not_pass_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_text('{"frames": 1}')
    stand_ins(monkeypatch, "pass")
    assert demo.run(parse("--out", str(tmp_path))) == 1
    assert capsys.readouterr().out == ""


def test_a_source_that_is_not_there_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "running", lambda *_: pytest.fail("started all the same"))
    assert demo.run(parse("--source", str(tmp_path / "no.mp4"), "--out", str(tmp_path))) == 1
    assert "there is nothing at" in capsys.readouterr().err
