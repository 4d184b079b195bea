"""How many threads to take beside other processes, from readings that are made up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_model import TINY, noise_frames, tiny_model

from sam2_ros.tracking import tracker
from sam2_ros.tracking.concurrency import prefetch_images
from sam2_ros.tracking.runtime import free_cores
from sam2_ros.tracking.runtime.free_cores import FreeCores, ThreadFollower, Usage, read_usage
from sam2_ros.tracking.tracker import Tracker


class Machine:
    """Two cores; others and we take so much of them in each second."""

    def __init__(self, cores: int = 2) -> None:
        self.now, self.cores = Usage(0.0, 0.0, 0.0, cores), cores

    def read(self) -> Usage:
        return self.now

    def pass_s(self, seconds: float, others: float, own: float) -> None:
        last = self.now
        everybody_s = last.everybody_s + seconds * (others + own)
        self.now = Usage(last.at_s + seconds, everybody_s, last.own_s + seconds * own, self.cores)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(free_cores.time, "monotonic", lambda: machine.now.at_s)
    return machine


def threads_over(machine: Machine, cores: FreeCores, loads: list[float]) -> Iterator[int]:
    for others in loads:
        machine.pass_s(0.5, others, own=machine.cores - others)
        yield cores.update()


def test_fewer_at_once_and_more_after_a_while(machine: Machine) -> None:
    cores = FreeCores(2, machine.read)
    loads = [0.0, 0.3, 1.0, 1.3, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert list(threads_over(machine, cores, loads)) == [2, 2, 1, 1, 1, 1, 1, 2, 2]


def test_a_neighbour_that_comes_and_goes_does_not_make_it_waver(machine: Machine) -> None:
    cores = FreeCores(2, machine.read)
    assert list(threads_over(machine, cores, [1.0, 0.1, 0.1, 0.1, 1.0] * 3)) == [1] * 15


@pytest.mark.parametrize(("others", "expected"), [(0.5, 8), (0.7, 7), (3.0, 5), (5.9, 2), (7.9, 1), (8.0, 1)])
def test_each_busy_core_is_one_thread_less(machine: Machine, others: float, expected: int) -> None:
    machine.cores = 8
    machine.now = Usage(0.0, 0.0, 0.0, 8)
    assert list(threads_over(machine, FreeCores(8, machine.read), [others])) == [expected]


def test_a_limit_below_the_cores_is_kept_while_there_is_room(machine: Machine) -> None:
    machine.now = Usage(0.0, 0.0, 0.0, 8)
    machine.cores = 8
    assert list(threads_over(machine, FreeCores(2, machine.read), [0.0, 5.0, 7.0])) == [2, 2, 1]


def test_our_own_load_is_not_the_others(machine: Machine) -> None:
    cores = FreeCores(2, machine.read)
    machine.pass_s(1.0, others=0.0, own=2.0)
    assert cores.update() == 2


def test_the_load_is_looked_at_seldom(machine: Machine) -> None:
    cores = FreeCores(2, machine.read)
    machine.pass_s(0.4, others=2.0, own=0.0)
    assert cores.update() == 2
    machine.pass_s(0.4, others=2.0, own=0.0)
    assert cores.update() == 1


def test_without_readings_the_number_stays() -> None:
    assert FreeCores(3, lambda: None).update() == 3


def test_the_readings_are_of_the_cores_that_this_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 20 30 999 999 4 5 6 7 8\ncpu1 1000 0 0 0 0 0 0 0 0 0\nintr 1 2\n"
    )
    monkeypatch.setattr(free_cores.os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(free_cores.os, "sysconf", lambda name: 100)
    usage = read_usage(stat)
    assert usage is not None
    assert (usage.everybody_s, usage.cores) == (pytest.approx(1.65), 1)
    assert read_usage(tmp_path / "none") is None


@pytest.fixture
def torch_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """PyTorch's number of threads, and all that were set before."""
    numbers = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: numbers[-1])
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    return numbers


def test_pytorch_follows_and_what_a_user_sets_is_the_limit(
    machine: Machine, torch_threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_cores.FreeCores.__init__, "__defaults__", (machine.read,))
    follower = ThreadFollower()
    follower.follow()
    machine.pass_s(1.0, others=1.5, own=0.5)
    follower.follow()
    assert torch_threads == [2, 1]
    for _ in range(4):
        machine.pass_s(1.0, others=0.0, own=1.0)
        follower.follow()
    assert torch_threads == [2, 1, 2]
    torch.set_num_threads(3)  # the user
    machine.cores = 4
    machine.now = Usage(machine.now.at_s, machine.now.everybody_s, machine.now.own_s, 4)
    follower.follow()
    machine.pass_s(1.0, others=1.9, own=1.0)
    follower.follow()
    assert torch_threads == [2, 1, 2, 3, 2]


def test_a_tracker_follows_between_two_images_if_it_is_to(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(tracker.FOLLOWER, "follow", lambda: calls.append(torch.get_num_threads()))
    network, images = tiny_model(TINY), noise_frames(3)
    Tracker(network).step(images[0])
    assert not calls
    following = Tracker(network, follow_load=True)
    following.step(images[0])
    assert len(calls) == 1
    # Prefetched: while two threads share PyTorch's number of threads, it is not to change.
    whole = torch.get_num_threads()
    for image in prefetch_images(following, images):
        following.step(image)
    assert calls == [whole] * 4
