"""The soak with misuse: what it judges, that a seed is a sequence, that everything can be sent, and a short run."""

from __future__ import annotations

import importlib
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("import_benchmarks")
KNOWN = "object0"


@pytest.fixture
def misuse(import_benchmarks: None) -> ModuleType:
    return importlib.import_module("misuse")


@pytest.fixture
def memory(import_benchmarks: None) -> Callable[[float], Any]:
    """``memory(drift in percent)``: a verdict whose bound is 2 percent."""
    verdict = importlib.import_module("soak_stats").Verdict
    return lambda percent: verdict(1000, percent, 0.0, 0.0, 2.0)


def a_report(misuse: ModuleType, **changes: Any) -> Any:
    report = misuse.Report(asked=Counter({"segment_image": 3}), latencies_ms=[20.0] * 95 + [50.0] * 5)
    for name, value in changes.items():
        setattr(report, name, value)
    return report


def test_a_node_that_stands_it_has_no_failures(misuse: ModuleType, memory: Any) -> None:
    report = a_report(misuse)
    assert misuse.failures(report, memory(1.9)) == []
    assert misuse.summary(report) == "latency p50 20 ms, p99 50 ms; hostile: segment_image 3"


@pytest.mark.parametrize(
    ("changes", "drift", "said"),
    [
        ({}, 2.1, "memory is not flat: RSS drift 2.1 %"),
        (
            {"lost": ["mug had label 1 and has None", "tin"]},
            0.0,
            "objects were not kept, 2 times, first: mug had label",
        ),
        ({"unanswered": ["clear", "save", "clear"]}, 0.0, r"not answered within 30 s: clear (2), save (1)"),
        ({"latencies_ms": [20.0] * 95 + [60.0] * 5}, 0.0, "latency p99 60 ms, expected less than 3 times p50, 20 ms"),
        ({"latencies_ms": []}, 0.0, "latency p99 nan ms"),
        ({"asked": Counter()}, 0.0, "nothing hostile was done"),
    ],
    ids=["memory", "objects", "answers", "latency", "no image", "nothing"],
)
def test_each_failure_is_named(misuse: ModuleType, memory: Any, changes: Any, drift: float, said: str) -> None:
    (line,) = misuse.failures(a_report(misuse, **changes), memory(drift))
    assert said in line


@pytest.mark.parametrize(
    ("changes", "drift", "status"),
    [({}, 0, 0), ({"unanswered": ["clear"]}, 0, 1), ({"lost": ["mug"]}, 0, 1), ({}, 9, 1)],
)
def test_the_status_is_that_of_all_that_is_judged(
    misuse: ModuleType, monkeypatch: pytest.MonkeyPatch, changes: Any, drift: int, status: int
) -> None:
    soak, stats = importlib.import_module("soak"), importlib.import_module("soak_stats")
    samples = [stats.Sample(100 * n, 1.0, 1000 + drift * n, 800, 200, 9, 9, 4, 20.0, 15.0, 10.0) for n in range(1, 20)]
    monkeypatch.setattr(soak, "soak", lambda args: (samples, a_report(misuse, **changes)))
    assert soak.main(["--misuse"]) == status


class Robot:
    """Stands for the node's client: remembers what is asked, and answers or not."""

    def __init__(self, answers: bool = True) -> None:
        self.asked: list[str] = []
        self.sent: list[Any] = []
        self._answers = answers
        self.node = self

    def create_publisher(self, kind: Any, topic: str, qos: Any) -> Any:
        robot = self

        class Publisher:
            def publish(self, message: Any) -> None:
                assert isinstance(message, kind)
                robot.asked.append(topic)
                robot.sent.append(message)

        return Publisher()

    def now_ns(self) -> int:
        return 10**18

    def start(self, kind: Any, name: str, **fields: Any) -> Any:
        self.asked.append(name)
        self.sent.append(kind.Request(**fields))
        answers = self._answers

        class Future:
            def done(self) -> bool:
                return answers

        return Future()

    def spin_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        if not condition():
            raise importlib.import_module("node_rig").BenchmarkError(what)


def run(misuse: ModuleType, folder: Any, seed: int, count: int, **options: Any) -> tuple[Robot, Any]:
    folder.mkdir()
    robot = Robot(**options)
    misuser = misuse.Misuser(robot, (48, 64), seed, folder)
    for _ in range(count):
        misuser.act(KNOWN)
    misuser.finish()
    return robot, misuser.report


def test_everything_is_done_can_be_sent_and_a_seed_is_a_sequence(misuse: ModuleType, tmp_path: Any) -> None:
    from rclpy.serialization import serialize_message

    robot, report = run(misuse, tmp_path / "a", 0, 300)
    again, _ = run(misuse, tmp_path / "b", 0, 300)
    other, _ = run(misuse, tmp_path / "c", 1, 300)
    assert robot.asked == again.asked != other.asked
    assert sum(report.asked.values()) == len(robot.asked) and not report.unanswered
    services = {"add_objects", "refine_object", "remove_objects", "segment_image", "save_session", "load_session"}
    services |= {"list_objects", "set_parameters", "change_state"}
    topics = {"/image", "/prompt", "/click", "/clicked_point", "/depth", "/camera_info"}
    assert report.asked.keys() == services | topics
    for topic, message in zip(robot.asked, robot.sent, strict=True):
        if topic in topics:
            serialize_message(message)


def test_no_prompt_changes_the_objects_of_the_honest_user(misuse: ModuleType) -> None:
    """REPLACE, UNDO and valid corrections would be no misuse: what is kept could not be told from what is lost."""
    rng = random.Random(0)
    for _ in range(2000):
        prompt = misuse.odd_prompt(rng, KNOWN)
        if prompt.object_id == KNOWN and prompt.action == prompt.REPLACE:
            assert prompt.mask.width > 0, "only masks that cannot be used"


def test_what_is_lost_started_or_unanswered_is_in_the_report(misuse: ModuleType, tmp_path: Any) -> None:
    robot = Robot()
    misuser = misuse.Misuser(robot, (48, 64), 0, tmp_path)
    misuser.tidy({KNOWN: 1, "object_9": 4}, {KNOWN: 1})
    assert not misuser.report.lost and robot.asked[-1].endswith("remove_objects")
    misuser.tidy({KNOWN: 2}, {KNOWN: 1, "tin": 3})
    assert misuser.report.lost == [f"{KNOWN} had label 1 and has 2", "tin had label 3 and has None"]
    _, report = run(misuse, tmp_path / "silent", 0, 20, answers=False)
    assert report.unanswered and set(report.unanswered) <= report.asked.keys()


def test_a_short_run_with_misuse(run_with_tiny_node: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    options = ("--frames", "60", "--objects", "2", "--width", "160", "--height", "120", "--misuse")
    # The bound is that of a node which is still warming up.
    done = run_with_tiny_node("soak.py", *options, "--sample-every", "5", "--bound-percent", "50")
    assert done.returncode in (0, 1), done.stderr
    said = done.stdout.splitlines()
    failed = [line for line in said if line.startswith("FAILED: ")]
    assert all("latency p99" in line for line in failed), "of so few images that is chance; the others are not"
    assert any("p99 " in line and "hostile: " in line for line in said)
