"""One schema: the checks, and that the generated files are those of the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sam2_ros.model.config import MODELS
from sam2_ros.session import parameters
from sam2_ros.session.parameter_spec import ParameterError
from sam2_ros.session.parameters import NodeParameters, parse, schema

ROOT = Path(__file__).parents[2]


def test_defaults_are_valid_and_typed() -> None:
    assert parse({}) == NodeParameters()
    assert parse({spec.name: spec.default for spec in schema()}) == NodeParameters()


def test_model_names_are_those_of_the_model_table() -> None:
    assert set(parameters.MODEL_NAMES) == {"auto", *MODELS}


def test_values_are_taken_over() -> None:
    values = parse({"model": "sam2.1_hiera_tiny", "checkpoint": "w.pt", "service_timeout_s": 2, "autostart": False})
    assert (values.model, values.checkpoint, values.autostart) == ("sam2.1_hiera_tiny", "w.pt", False)
    assert values.service_timeout_s == 2.0 and isinstance(values.service_timeout_s, float)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model": "nan0"}, "model must be one of auto, nano, edgetam, .*; got 'nan0'"),
        ({"model": 3}, r"model must be of type string, got 3 \(int\)"),
        ({"num_threads": -1}, "num_threads is out of range, allowed: 0 .. 256; got -1"),
        ({"num_threads": 2.0}, r"num_threads must be of type integer, got 2.0"),
        ({"num_threads": True}, "num_threads must be of type integer, got True"),
        ({"lost_after_frames": 0}, "lost_after_frames is out of range, allowed: >= 1; got 0"),
        ({"service_timeout_s": float("nan")}, "service_timeout_s is out of range"),
        ({"autostart": "yes"}, "autostart must be of type bool"),
        ({"click_mode": "remove"}, "click_mode must be one of add, refine, auto"),
        ({"devise": "cpu"}, "unknown parameter.s. devise; known: model, "),
        ({"checkpoint": "w.pt", "weights": "random"}, "use one of them"),
        ({"checkpoint_sha256": "0" * 64}, "checkpoint_sha256 is set without a checkpoint"),
    ],
)
def test_rejections_name_the_parameter_and_what_is_allowed(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ParameterError, match=reason):
        parse(values)


def test_yaml_file_is_current() -> None:
    text = (ROOT / "config" / "sam2_node.yaml").read_text()
    assert text == parameters.render_yaml(), "run: python -m sam2_ros.session.parameters yaml > config/sam2_node.yaml"
    assert parse(yaml.safe_load(text)["/**"]["ros__parameters"]) == NodeParameters()


def test_documentation_is_current() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text()
    assert text == parameters.render_markdown(), (
        "run: python -m sam2_ros.session.parameters markdown > docs/parameters.md"
    )
    assert all(f"| `{spec.name}` |" in text for spec in schema())


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert parameters.main(["yaml"]) == 0
    assert capsys.readouterr().out == parameters.render_yaml()
    assert parameters.main(["html"]) == 2
    assert "markdown, yaml" in capsys.readouterr().err


def test_ranges_are_such_that_ros_can_describe_them() -> None:
    """Its range of doubles has two ends; one of integers may be left open here."""
    ends = {spec.name: (spec.minimum, spec.maximum) for spec in schema() if isinstance(spec.default, float)}
    assert ends
    assert not {name for name, (low, high) in ends.items() if (low is None) != (high is None)}
