"""No test hangs on the last bit of a sum, or on which instructions a processor has: ``make isa``, and what it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPARES = re.compile(r"\bassert_(?:close|same_logits|same_result)\b")
BIT_FOR_BIT = re.compile(r"array_equal\([^\n]*logits")
AS_AVX2 = "ATEN_CPU_CAPABILITY=avx2+ONEDNN_MAX_CPU_ISA=AVX2"


def numeric_files() -> list[Path]:
    folders = ("model", "tracking", "training", "evaluation", "export", "parity")
    return sorted(path for folder in folders for path in (ROOT / "test" / folder).glob("test_*.py"))


@pytest.mark.parametrize("path", numeric_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_computed_twice_is_compared_within_a_tolerance_and_tried_with_other_instructions(path: Path) -> None:
    text = path.read_text()
    if COMPARES.search(text):
        assert "pytest.mark.numeric" in text, "mark what compares results of a network: `make isa` runs the marked ones"
    for number, line in enumerate(text.splitlines(), 1):
        assert not BIT_FOR_BIT.search(line), (
            f"{path.name}:{number}: logits that were computed twice differ in their last bits on another processor; "
            "use assert_same_logits, or assert_other_logits where they must differ"
        )


def make_isa(tmp_path: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """With a stand-in for the environment's python, which fails where torch is held to AVX2."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "print('pytest', *sys.argv[1:])\nsys.exit(os.environ.get('ATEN_CPU_CAPABILITY') == 'avx2')\n"
    )
    python.chmod(0o755)
    command = ["make", "-o", "venv", "isa", f"BIN={tmp_path}", *settings]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_make_isa_runs_the_marked_tests_under_each_setting_and_names_those_that_failed(tmp_path: Path) -> None:
    done = make_isa(tmp_path)
    settings = re.findall(r"^\[isa\] (.+)$", done.stdout, flags=re.M)
    assert len(settings) == len(set(settings)) == 8
    assert {setting.split()[-1] for setting in settings} == {"OMP_NUM_THREADS=1", "OMP_NUM_THREADS=2"}
    assert done.stdout.count("numeric and not long") == 8, "a failure does not end the others"
    failed = re.findall(r"^\[isa\] failed: (.+)$", done.stderr, flags=re.M)
    assert done.returncode != 0 and failed == [setting for setting in settings if "CAPABILITY=avx2" in setting]


def test_make_isa_of_one_setting_succeeds(tmp_path: Path) -> None:
    done = make_isa(tmp_path, "ISA=ATEN_CPU_CAPABILITY=default+OMP_NUM_THREADS=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[isa] ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1\n")


def test_continuous_integration_tries_a_processor_with_avx2_only() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line.removeprefix("exec ").split("+OMP")[0] for line in lines if "make " in line] == [
        "make test",
        f"make isa ISA={AS_AVX2}",
    ]
