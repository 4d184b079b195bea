"""Time per frame and stage of several trackers in one run: they take turns, so that other load affects all alike.

The parts of the network have the same names in the official code and in ours, so one clock measures both.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from sam2_ros.evaluation.metrics import region_similarity
from sam2_ros.tracking.runtime.encoder_engine import plain_encoders

STAGES = ("image_encoder", "memory_attention", "sam_mask_decoder", "memory_encoder")

# Operators that the counter does not know: fused attention on CPUs, and products with packed weights.
_MORE_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    _MORE_FORMULAS[torch.ops.mkldnn._linear_pointwise] = lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]

_LARGEST_PRODUCT, _LONG_PRODUCT_MS = 8192, 200.0  # of the ceiling: largest matrix side, and sufficient time

Masks = Mapping[str, NDArray[np.bool_]]  # object id -> (H, W)


@dataclass(frozen=True)
class Contender:
    """One tracker in the comparison. All process the same frames."""

    name: str
    network: nn.Module  # has ``STAGES`` as children
    step: Callable[[int], Masks]  # processes the next frame, which has this index
    compile_s: float | None = None  # time to compile it

    def timed(self, index: int, device: torch.device) -> tuple[float, Masks]:
        """Process the next frame; how long it took [ms], and its masks."""
        started = now_ms(device)
        found = self.step(index)
        return now_ms(device) - started, found

    def by_stage(self, index: int, device: torch.device) -> dict[str, float]:
        """Process the next frame; how long each stage took [ms]."""
        clock = StageClock(self.network, device)
        with clock.running():
            self.step(index)
        return clock.spent_ms

    def count_gflop(self, index: int) -> float:
        """Process the next frame; its floating-point operations."""
        with _eager(), plain_encoders(), FlopCounterMode(display=False, custom_mapping=_MORE_FORMULAS) as counter:
            self.step(index)
        return counter.get_total_flops() / 1e9


class Timeable(Protocol):
    """A ``Contender``, or one that works in another process and measures itself there."""

    @property
    def name(self) -> str: ...
    @property
    def step(self) -> Callable[[int], Masks]: ...
    def timed(self, index: int, device: torch.device) -> tuple[float, Masks]: ...
    def by_stage(self, index: int, device: torch.device) -> dict[str, float]: ...
    def count_gflop(self, index: int) -> float: ...


@dataclass(frozen=True)
class Measured:
    """Measurements of one contender in steady state."""

    name: str
    frame_ms: list[float]
    stage_ms: dict[str, list[float]]  # per frame, summed over the calls of a stage
    gflop: float  # of one frame: matrix products, convolutions and attention
    masks: list[Masks] = field(repr=False)  # of the timed frames

    @property
    def frame_ms_p50(self) -> float:
        return median(self.frame_ms)

    @property
    def stage_ms_p50(self) -> dict[str, float]:
        return {stage: median(values) for stage, values in self.stage_ms.items()}

    @property
    def tflop_per_s(self) -> float:
        return self.gflop / self.frame_ms_p50


class StageClock:
    """Measures the time that a network spends in each of ``STAGES``."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device
        self.spent_ms = dict.fromkeys(STAGES, 0.0)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure, from zero, while the context is active."""
        self.spent_ms = dict.fromkeys(STAGES, 0.0)
        parts = {stage: self._network.get_submodule(stage) for stage in STAGES}
        own = {
            stage: vars(part).get("forward") for stage, part in parts.items()
        }  # compiled official modules have such a forward
        for stage, part in parts.items():
            part.forward = self._timed(stage, part.forward)
        try:
            yield
        finally:
            for stage, part in parts.items():
                del part.forward
                if (forward := own[stage]) is not None:
                    part.forward = forward

    def _timed(self, stage: str, forward: Callable) -> Callable:
        def timed(*args, **kwargs):  # type: ignore[no-untyped-def]
            started = now_ms(self._device)
            result = forward(*args, **kwargs)
            self.spent_ms[stage] += now_ms(self._device) - started
            return result

        return timed


def now_ms(device: torch.device) -> float:
    """The time, after all work queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() * 1e3


def measure(
    contenders: Sequence[Timeable],
    warm_frames: int,
    timed_frames: int,
    device: torch.device,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Measured]:
    """Run all contenders on the frames, in turns; time the frames after the first ``warm_frames``.

    Stages are timed in separate frames, because synchronising a GPU after each stage slows a frame down. One more frame
    counts the floating-point operations.

    Args:
        contenders: with their prompts in frame 0.
        warm_frames: at least as many as the memory holds, for a steady state.
        timed_frames: number of frames timed as a whole, and again by stage.
        device: where they run.
        progress: called with a description of each step.
    """
    total = frames_needed(warm_frames, timed_frames)
    whole: dict[str, list[float]] = {c.name: [] for c in contenders}
    stages: dict[str, dict[str, list[float]]] = {c.name: {stage: [] for stage in STAGES} for c in contenders}
    masks: dict[str, list[Masks]] = {c.name: [] for c in contenders}
    gflop: dict[str, float] = {}
    for index in range(total):
        for contender in contenders:
            progress(f"frame {index + 1}/{total}, {contender.name}")
            if index < warm_frames:
                contender.step(index)
            elif index < warm_frames + timed_frames:
                spent_ms, found = contender.timed(index, device)
                whole[contender.name].append(spent_ms)
                masks[contender.name].append(found)
            elif index < total - 1:
                for stage, spent_ms in contender.by_stage(index, device).items():
                    stages[contender.name][stage].append(spent_ms)
            else:
                gflop[contender.name] = contender.count_gflop(index)
    return [Measured(c.name, whole[c.name], stages[c.name], gflop[c.name], masks[c.name]) for c in contenders]


def _eager() -> contextlib.AbstractContextManager[object]:
    """Run without compiled code, into which the counter cannot see."""
    return torch.compiler.set_stance("force_eager")


def frames_needed(warm_frames: int, timed_frames: int) -> int:
    """Number of frames that ``measure`` processes."""
    return warm_frames + 2 * timed_frames + 1


def ious(masks: Sequence[Masks], reference: Sequence[Masks]) -> list[float]:
    """IoU with the reference of every object in every frame; 1 where both masks are empty."""
    return [
        region_similarity(ours[object_id], expected)
        for ours, theirs in zip(masks, reference, strict=True)
        for object_id, expected in theirs.items()
    ]


def product_tflop_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """The throughput of the device in one large matrix product: the ceiling for a network of that type."""
    size, best_ms = 256, 0.0
    while size < _LARGEST_PRODUCT and best_ms < _LONG_PRODUCT_MS:  # a small product is enough for a slow type
        size *= 2
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        a @ b
        best_ms = float("inf")
        for _ in range(3):
            started = now_ms(device)
            a @ b
            best_ms = min(best_ms, now_ms(device) - started)
    return 2 * size**3 / best_ms / 1e9
