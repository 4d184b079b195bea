"""No case is left out of ``make parity``, and what was measured becomes a table.

``make parity`` names the table's folder in PARITY_REPORT. A row is written when its test has passed, so that a long run
that is stopped has told what it knows; a later run of some cases (``make parity K=...``) replaces their rows only, and
one that goes on (``make parity GO_ON=1``) leaves out the scripts that have a row of the same code.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sam2_ros.evaluation.official import NOT_INSTALLED, import_official_builder
from sam2_ros.model import attention, hiera, packed, softmax_attention

try:
    from xdist.scheduler import LoadScopeScheduling
except ImportError:  # a ROS workspace may be without it: then there is one process, and nothing to schedule
    LoadScopeScheduling = object

REPORT = Path(os.environ["PARITY_REPORT"]) if "PARITY_REPORT" in os.environ else None
GOES_ON = bool(os.environ.get("PARITY_GO_ON"))
KEY = ("case", "model", "px", "postprocess")
COLUMNS = (*KEY, "max difference", "min mask IoU", "code")
_SETTINGS = {True: "default", False: "benchmark", None: ""}
# What a script's result depends on; of our own code also the parts that no script uses, which costs a run too many, but
# not the readers of files: both sides are given the same tensors.
_CODE = (
    "sam2_ros/model/*.py",
    "sam2_ros/tracking/*.py",
    "sam2_ros/evaluation/official*.py",
    "test/support/official_play.py",
    "test/support/official_parts.py",
    "test/support/official_worker.py",
    "test/support/official_cases.py",
    "test/support/synthetic_frames.py",
)
_READERS = {"checkpoint_files.py", "huggingface.py"}
_measured_now: set[tuple[str, ...]] = set()  # keys of this session's rows; the others are of an earlier one


def _code_state() -> str:
    """Stands for the code; not for its comments and its layout."""
    root = Path(__file__).parents[2]
    files = sorted(path for pattern in _CODE for path in root.glob(pattern) if path.name not in _READERS)
    return hashlib.sha256("".join(ast.dump(ast.parse(path.read_text())) for path in files).encode()).hexdigest()[:8]


CODE = _code_state()


class BySetting(LoadScopeScheduling):
    """The scripts of a setting go to one process, where they share what is expensive.

    In place of the mark ``xdist_group``, which pytest-xdist 3.8 loses under pytest 9.2 without a word.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.rpartition("-")[0] if "test_tracking[" in nodeid else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BySetting | None:
    return BySetting(config, log) if REPORT is not None else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if REPORT is None or not GOES_ON:
        return
    known = {row[: len(KEY)] for row in _read_rows().values() if row[-1] == CODE}
    done = [item for item in items if _key_of_script(item) in known]
    items[:] = [item for item in items if item not in done]
    config.hook.pytest_deselected(items=done)


def _key_of_script(item: pytest.Item) -> tuple[str, ...] | None:
    """The key of the row that the test of a script of prompts adds; None for other tests."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if not {"setting", "case"} <= params.keys():
        return None
    setting = params["setting"]
    return params["case"].name, setting.model, str(setting.image_size), _SETTINGS[setting.postprocess]


@pytest.fixture(scope="session", autouse=True)
def official_package() -> None:
    if import_official_builder() is None:
        pytest.skip(NOT_INSTALLED)


@pytest.fixture(autouse=True)
def ways_of_large_images(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images go the ways that are meant for large ones: packed products, strips, slices, keys map by map.

    Of the products those of the image encoder and the memory attention only: the decoder's are small at any size.
    """
    is_meant = request.path.name in ("test_modules.py", "test_end_to_end.py", "test_relatives.py")
    if is_meant and request.node.get_closest_marker("long") is None:
        # The packed weights of the largest would be most of a gigabyte, to show nothing new.
        monkeypatch.setattr(packed, "_WORTH_PRODUCTS", math.inf if "large" in request.node.name else 2**24)
        monkeypatch.setattr(hiera, "_STRIP_BYTES", 2**16)
        monkeypatch.setattr(softmax_attention, "_MAX_SCORE_BYTES", 2**15)
        monkeypatch.setattr(attention, "_CACHED_KEYS", 0)


@pytest.fixture
def add_row(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``add_row(case, model, px, postprocess, max_difference, min_mask_iou)``: what this test measured.

    Tests that name the same case of the same model share a row, which holds the worst of them.
    """

    def add(
        case: str, model: str, px: int, postprocess: bool | None, max_difference: float, min_iou: float | None = None
    ) -> None:
        setting = _SETTINGS[postprocess]
        iou = "" if min_iou is None else f"{min_iou:.6f}"
        request.node.user_properties.append(
            ("parity", (case, model, str(px), setting, f"{max_difference:.1e}", iou, CODE))
        )

    return add


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):  # type: ignore[no-untyped-def]
    outcome = yield
    report = outcome.get_result()
    if REPORT is not None and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"make parity leaves no case out, but: {reason}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    rows = [tuple(value) for name, value in report.user_properties if name == "parity"]
    one_of_several = "PYTEST_XDIST_WORKER" in os.environ  # then the process that started them writes
    if REPORT is None or one_of_several or report.when != "call" or not rows:
        return
    table = _read_rows()
    for row in rows:
        key = row[: len(KEY)]
        if not report.passed:
            table.pop(key, None)  # what was measured before is not true any more
            continue
        table[key] = _worst(row, table[key]) if key in _measured_now else row
        _measured_now.add(key)
        print("\n" + " | ".join(row), flush=True)
    REPORT.mkdir(parents=True, exist_ok=True)
    with (REPORT / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *table.values()])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REPORT is None or not (table := _read_rows()):
        return
    lines = [" | ".join(row) for row in (COLUMNS, ("---",) * len(COLUMNS), *table.values())]
    text = "\n".join(f"| {line} |" for line in lines) + "\n"
    (REPORT / "table.md").write_text(text)
    terminalreporter.section("ours against the official code")
    terminalreporter.write(text)


def _worst(row: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    *key, difference, iou, code = row
    return (*key, max(difference, other[-3], key=float), min(iou, other[-2], key=lambda iou: float(iou or 1)), code)


def _read_rows() -> dict[tuple[str, ...], tuple[str, ...]]:
    path = Path(REPORT or ".", "rows.csv")
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {tuple(row[: len(KEY)]): tuple(row) for row in list(csv.reader(file))[1:]}
