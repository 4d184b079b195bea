"""Timing by turns, on networks whose times are known because the clock is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sam2_ros.evaluation import latency
from sam2_ros.evaluation.latency import STAGES, Contender, StageClock, frames_needed, ious, measure

CPU = torch.device("cpu")


class Part(nn.Module):
    """Takes as long on the clock as it is told."""

    def __init__(self, clock: list[float], takes_ms: float) -> None:
        super().__init__()
        self.clock, self.takes_ms = clock, takes_ms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock[0] += self.takes_ms
        return x @ x


class Network(nn.Module):
    def __init__(self, clock: list[float], times_ms: tuple[float, ...]) -> None:
        super().__init__()
        for stage, takes_ms in zip(STAGES, times_ms, strict=True):
            self.add_module(stage, Part(clock, takes_ms))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(latency, "now_ms", lambda device: now[0])
    return now


def contender(name: str, clock: list[float], times_ms: tuple[float, ...], seen: list[str]) -> Contender:
    network = Network(clock, times_ms)

    def step(index: int) -> dict[str, np.ndarray]:
        seen.append(f"{name}{index}")
        for stage in STAGES:
            network.get_submodule(stage)(torch.ones(8, 8))
        clock[0] += 10  # what is around the network
        return {"a": np.full((2, 2), index % 2 == 0)}

    return Contender(name, network, step)


def test_all_take_turns_and_frames_and_stages_are_timed(clock: list[float]) -> None:
    seen: list[str] = []
    slow, fast = (contender(n, clock, t, seen) for n, t in (("s", (40.0, 30, 20, 10)), ("f", (4.0, 3, 2, 1))))
    a, b = measure([slow, fast], warm_frames=2, timed_frames=3, device=CPU)
    assert seen == [f"{name}{index}" for index in range(frames_needed(2, 3)) for name in "sf"]
    assert (a.frame_ms, b.frame_ms) == ([110.0] * 3, [20.0] * 3)
    assert b.stage_ms_p50 == dict(zip(STAGES, (4, 3, 2, 1), strict=True))
    assert a.gflop == pytest.approx(4 * 2 * 8**3 / 1e9)
    assert a.tflop_per_s == pytest.approx(a.gflop / 110)


def test_the_clock_leaves_the_network_as_it_was(clock: list[float]) -> None:
    network = Network(clock, (1, 1, 1, 1))
    with StageClock(network, CPU).running():
        pass
    assert all("forward" not in vars(network.get_submodule(stage)) for stage in STAGES)


def test_a_compiled_part_is_compiled_again_after_the_clock() -> None:
    network = Network([0.0], (1, 1, 1, 1))
    compiled = network.get_submodule(STAGES[0]).forward
    network.get_submodule(STAGES[0]).forward = compiled  # as the official compiled predictor keeps its own
    with StageClock(network, CPU).running():
        pass
    assert vars(network.get_submodule(STAGES[0]))["forward"] is compiled


def test_attention_of_a_cpu_is_counted() -> None:
    network = Network([0.0], (0, 0, 0, 0))
    q = torch.randn(1, 2, 16, 8)

    def step(index: int) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            torch.nn.functional.scaled_dot_product_attention(q, q, q)
        return {}

    (found,) = measure([Contender("a", network, step)], warm_frames=1, timed_frames=1, device=CPU)
    assert found.gflop == pytest.approx(2 * 2 * (2 * 16 * 16 * 8) / 1e9)


def test_every_object_in_every_frame_counts() -> None:
    whole, half, none = np.ones((2, 2), bool), np.array([[1, 1], [0, 0]], bool), np.zeros((2, 2), bool)
    assert ious([{"a": whole, "b": none}, {"a": half, "b": none}], [{"a": whole, "b": none}] * 2) == [1, 1, 0.5, 1]
