"""The documents say what is there: commands, names, fields, links, and an example that runs."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sam2_ros.bringup.arguments import ARGUMENTS
from sam2_ros.model.config import model_config
from sam2_ros.session.parameters import schema
from sam2_ros.tracking import loading
from sam2_ros.training.config import load_config

ROOT = Path(__file__).parent.parent
NODE = ROOT / "sam2_ros" / "node"
README = ROOT / "README.md"
DOCUMENTS = [README, *(ROOT / name for name in ("CHANGELOG.md", "QUALITY_DECLARATION.md")), *ROOT.glob("docs/*.md")]
# Taken from a run of the demo, so it is not there before the first.
PENDING_LINKS = {"docs/images/demo.png"}
SAM2_ROS = ("sam2-ros", "sam2_ros.cli")  # the command, and the module that torchrun starts


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language, also those that are indented as part of a list."""
    pattern = rf"^( *)```{language}\n(.*?)^\1```$"
    return [match[2] for match in re.finditer(pattern, path.read_text(encoding="utf-8"), re.M | re.S)]


def commands(path: Path) -> Iterator[list[str]]:
    """Every command of the shell blocks, split as a shell would."""
    for block in code_blocks(path, "bash"):
        for line in block.splitlines():
            for part in re.split(r" && ", line):
                words = shlex.split(part, comments=True)
                if words:
                    yield words


ALL_COMMANDS = [(path, words) for path in DOCUMENTS for words in commands(path)]


def commands_like(*start: str) -> list[list[str]]:
    found = [words for _, words in ALL_COMMANDS if words[: len(start)] == list(start)]
    assert found, f"no document shows `{' '.join(start)} ...`: is the search wrong?"
    return found


def section_names(heading: str) -> set[str]:
    """What stands in code font in the first column of the tables below a heading of the README."""
    section = README.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.M)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def names_in_code(*methods: str) -> set[str]:
    """Second arguments, where they are texts, of the calls of these methods in ``node/``."""
    names = set()
    for path in NODE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in methods:
                second = call.args[1] if len(call.args) > 1 else None
                if isinstance(second, ast.Constant) and isinstance(second.value, str):
                    names.add(second.value)
    return names


def topics() -> set[str]:
    return names_in_code("create_subscription", "create_publisher", "create_lifecycle_publisher")


def services() -> set[str]:
    return names_in_code("_serve")


def test_the_readme_lists_the_topics_and_services_of_the_node() -> None:
    assert section_names("Topics") == topics()
    assert section_names("Services") == services()


def test_the_parameters_of_the_readme_exist() -> None:
    named = section_names("Parameters")
    assert named, "the README's table of parameters was not found"
    assert named <= {spec.name for spec in schema()}


def test_the_python_examples_run_as_they_stand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    # Whether the examples work is the question, not what the weights see.
    for name in ("load_tracker", "load_image_predictor"):
        monkeypatch.setattr(loading, name, functools.partial(getattr(loading, name), weights="random"))
    blocks = code_blocks(README, "python")
    for example in (block for block in blocks if "Sam2Client" not in block):  # those run in test_client.py
        exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:5]] == ["0", "1", "2", "3", "4"]
    assert printed[5].startswith("(3, 480, 640)")


@pytest.mark.parametrize("command", [words for _, words in ALL_COMMANDS if set(words) & set(SAM2_ROS)], ids=" ".join)
def test_sam2_ros_understands_its_command_lines(command: list[str]) -> None:
    (start,) = (place for place, word in enumerate(command) if word in SAM2_ROS)
    module = importlib.import_module(f"sam2_ros.commands.{command[start + 1]}")
    parser = argparse.ArgumentParser(allow_abbrev=False)
    module.configure(parser)
    parser.parse_args(command[start + 2 :])  # ends with SystemExit, and says why, when it does not


def test_make_has_the_targets_and_variables() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands_like("make"):
        for word in words[1:]:
            name, is_variable, _ = word.partition("=")
            wanted = f"$({name})" if is_variable else f"\n{name}:"
            assert wanted in makefile, f"`{' '.join(words)}`: the Makefile has no {name}"


def test_launch_and_run_lines_name_what_is_there() -> None:
    arguments = {name for name, _, _ in ARGUMENTS}  # each launch file declares all of them
    for words in commands_like("ros2", "launch", "sam2_ros"):
        assert (ROOT / "launch" / words[3]).is_file(), f"`{' '.join(words)}`: no such launch file"
        given = {word.partition(":=")[0] for word in words[4:] if ":=" in word}
        assert given <= arguments, f"`{' '.join(words)}`: the launch files have {sorted(arguments)}"
    for words in commands_like("sam2_node"):
        assert (ROOT / "scripts" / words[0]).is_file()
        remapped = {word.partition(":=")[0] for flag, word in itertools.pairwise(words) if flag == "-r"}
        assert remapped <= topics()


def fields_of(interface: str) -> dict[str, str]:
    """Field name -> type of an interface file of ours; of a service, those of the request."""
    _, kind, name = interface.split("/")
    text = (ROOT / kind / f"{name}.{kind}").read_text(encoding="utf-8").split("\n---\n")[0]
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    return {words[1]: words[0] for words in lines if len(words) == 2 and "=" not in words[1]}


def unknown_fields(value: dict[str, object], interface: str) -> Iterator[str]:
    fields = fields_of(interface)
    for name, inner in value.items():
        kind = fields.get(name, "").partition("[")[0]
        if not kind:
            yield f"{interface} has no field {name}, only {', '.join(fields)}"
        elif (ROOT / "msg" / f"{kind}.msg").is_file():
            for item in inner if isinstance(inner, list) else [inner]:
                yield from unknown_fields(item, f"sam2_ros/msg/{kind}")


def test_service_calls_fit_the_interfaces() -> None:
    private = {name.replace("~", "/sam2_node") for name in services()}
    for words in commands_like("ros2", "service", "call"):
        name, interface, text = words[3:]
        assert name in private, f"the node has no service {name}"
        if interface.startswith("sam2_ros/"):
            assert not list(unknown_fields(yaml.safe_load(text), interface))


def test_topics_in_commands_are_published() -> None:
    private = {name.replace("~", "/sam2_node") for name in topics()}
    for words in commands_like("ros2", "topic", "echo"):
        assert words[3] in private


def anchors(path: Path) -> set[str]:
    """What headings can be linked to as: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^( *)```.*?^\1```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"\w+:", target):
            continue  # another site
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.is_relative_to(ROOT), f"{relative(path)}: {target} leads out of the project"
        if relative(linked) in PENDING_LINKS and not linked.exists():
            continue
        assert linked.exists(), f"{relative(path)}: {target} leads nowhere"
        assert not anchor or anchor in anchors(linked), f"{relative(path)}: {target}: no such heading"


def test_the_training_recipe_loads() -> None:
    config = load_config(ROOT / "config" / "train_nano.yaml")
    assert config.model == "nano"
    assert all(root.weight > 0 for root in config.photo_roots)
    assert all(all(size % 32 == 0 for size in stage.sizes_px) and stage.lr_end < stage.lr for stage in config.stages)
    # What the weights saw last should be what they are used for.
    assert model_config(config.model).image_size in config.stages[-1].sizes_px
