"""Latency of our tracker and of the official predictor, with the same weights, images and boxes, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_ros.demo.tabletop.scene import Tabletop
from sam2_ros.evaluation.latency import (
    STAGES,
    Contender,
    Masks,
    Measured,
    frames_needed,
    ious,
    measure,
    product_tflop_per_s,
)
from sam2_ros.evaluation.official import OfficialStream, build_official, randomise
from sam2_ros.model.config import Approximations, ModelConfig, approximate, model_config
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.compiled import compile_network
from sam2_ros.tracking.loading import Precision, check_device, choose_precision, has_fast_bfloat16, load_network
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.zoom.window import MAX_ZOOMED_OBJECTS

_SEED, _OBJECT_SCORE_BIAS = 7, 4.0  # of the random weights; the bias makes objects visible
_SHORT = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True)
class Comparison:
    """The measurements, and what they were made on."""

    model: str
    image_size: int
    num_objects: int
    size_hw: tuple[int, int]  # of the camera image, px
    device: str
    threads: int
    measured: list[Measured]
    default: str  # name of the contender with default settings
    ceiling_tflop_per_s: dict[str, float]  # by type, in one large matrix product
    compile_s: dict[str, float]  # by name, of compiled contenders

    def rows(self) -> list[dict[str, Any]]:
        """One row per contender."""
        reference = self.measured[0]
        return [
            {
                "model": self.model,
                "image_size": self.image_size,
                "objects": self.num_objects,
                "camera": f"{self.size_hw[1]}x{self.size_hw[0]}",
                "contender": m.name,
                "ms": round(m.frame_ms_p50, 2),
                "ratio": round(reference.frame_ms_p50 / m.frame_ms_p50, 2),
                **{stage: round(ms, 2) for stage, ms in m.stage_ms_p50.items()},
                "gflop": round(m.gflop, 1),
                "tflop_per_s": round(m.tflop_per_s, 3),
                "of_ceiling": round(m.tflop_per_s / self._ceiling(m.name), 2),
                "mean_iou": round(mean(ious(m.masks, reference.masks)), 4),
                "worst_iou": round(min(ious(m.masks, reference.masks)), 4),
                "threads": self.threads,
                "device": self.device,
            }
            for m in self.measured
        ]

    def table(self) -> str:
        """The rows as Markdown, below a description of the setting."""
        columns = ("contender", "ms", "ratio", *STAGES, "gflop", "tflop_per_s", "of_ceiling", "mean_iou", "worst_iou")
        ceilings = ", ".join(f"{value:.3f} in {name}" for name, value in self.ceiling_tflop_per_s.items())
        emulated = "" if "bfloat16" in self.ceiling_tflop_per_s else "; bfloat16 is emulated here and was left out"
        lines = [
            f"{self.model} at {self.image_size} px, {self.num_objects} object(s), camera image "
            f"{self.size_hw[1]}x{self.size_hw[0]}; {self.device}, {self.threads} thread(s), torch {torch.__version__}",
            f"medians of {len(self.measured[0].frame_ms)} frames in steady state; one large matrix product: {ceilings} "
            f"TFLOP/s{emulated}",
            "",
            "| " + " | ".join(columns) + " |",
            "|" + " --- |" * len(columns),
        ]
        lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in self.rows()]
        lines += [f"{name}: compiled in {spent_s:.0f} s" for name, spent_s in self.compile_s.items()]
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """The JSON summary; ``speedup_vs_official`` is our default against the fastest official one, None without."""
        by_name = {m.name: m for m in self.measured}
        official = [m.frame_ms_p50 for m in self.measured if m.name.startswith("official")]
        ours_ms = by_name[self.default].frame_ms_p50
        return {
            "model": self.model,
            "image_size": self.image_size,
            "objects": self.num_objects,
            "device": self.device,
            "threads": self.threads,
            "default": self.default,
            "ms": {name: round(m.frame_ms_p50, 2) for name, m in by_name.items()},
            "speedup_vs_official": round(min(official) / ours_ms, 3) if official else None,
            "mean_iou": {row["contender"]: row["mean_iou"] for row in self.rows()},
            "worst_iou": {row["contender"]: row["worst_iou"] for row in self.rows()},
            "compile_s": {name: round(value, 1) for name, value in self.compile_s.items()},
            "ceiling_tflop_per_s": {name: round(value, 3) for name, value in self.ceiling_tflop_per_s.items()},
        }

    def _ceiling(self, contender: str) -> float:
        return self.ceiling_tflop_per_s["bfloat16" if "bfloat16" in contender else "float32"]


def compare_latency(
    model: str,
    num_objects: int = 1,
    timed_frames: int = 5,
    image_size: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    size_hw: tuple[int, int] = (480, 640),
    with_official: bool = True,
    emulated: bool = False,
    approximations: Approximations | None = None,
    with_compiled: bool = False,
    with_zoom: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Time a model in float32 and in bfloat16, and the official code in both if it has the model.

    Args:
        model: a name from the model table. nano has its own weights, the others random ones.
        num_objects: tracked at once.
        timed_frames: number of timed frames, after those that fill the memory.
        image_size: side of the model's input in px; None: the model's own.
        device: "cpu", "cuda", ... On a GPU the official compiled predictor is included.
        threads: of the CPU; None: PyTorch's default.
        size_hw, with_official: of the camera image, px; False times our code alone.
        emulated: include bfloat16 without hardware support, which is a hundred times slower.
        approximations, with_compiled, with_zoom: include our default with each; compiled on a GPU always.
        progress: called with a description of each step.

    Raises:
        ValueError: an unknown model, size or device, or numbers below 1.
        ImportError: the official package is not installed.
    """
    _check(num_objects, timed_frames, threads, device, with_zoom)
    torch.set_num_threads(threads or torch.get_num_threads())
    config, where = model_config(model, image_size), torch.device(device)
    warm_frames = max(config.num_spatial_memories, config.max_pointers) + 1
    frames = _frames(frames_needed(warm_frames, timed_frames), *size_hw)
    boxes = list(_boxes(num_objects, *size_hw))
    default = choose_precision("auto", config, where)
    dtypes = list(_SHORT) if emulated or has_fast_bfloat16(where) else [torch.float32]
    contenders = list(_contenders(config, approximations, frames, boxes, where, dtypes, with_official, with_zoom))
    if with_compiled or where.type == "cuda":
        contenders.append(_compiled(contenders, f"ours {default}", frames, boxes, progress))
    with torch.inference_mode():
        measured = measure(contenders, warm_frames, timed_frames, where, progress)
        ceilings = {_SHORT[dtype]: product_tflop_per_s(where, dtype) for dtype in dtypes}
    return Comparison(
        model=config.name,
        image_size=config.image_size,
        num_objects=num_objects,
        size_hw=size_hw,
        device=_name_of(where),
        threads=torch.get_num_threads(),
        measured=measured,
        default=f"ours {default}",
        ceiling_tflop_per_s=ceilings,
        compile_s={c.name: c.compile_s for c in contenders if c.compile_s is not None},
    )


def _check(num_objects: int, timed_frames: int, threads: int | None, device: str, with_zoom: bool) -> None:
    if num_objects < 1 or timed_frames < 1:
        raise ValueError(f"expected at least one object and one frame, got {num_objects} and {timed_frames}")
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least one thread, got {threads}")
    if with_zoom and num_objects > MAX_ZOOMED_OBJECTS:
        raise ValueError(f"zoom is for at most {MAX_ZOOMED_OBJECTS} objects, got {num_objects}")
    check_device(device)


def _contenders(
    config: ModelConfig,
    approximations: Approximations | None,
    frames: list[NDArray[np.uint8]],
    boxes: list[tuple[float, ...]],
    device: torch.device,
    dtypes: Sequence[torch.dtype],
    with_official: bool,
    with_zoom: bool,
) -> Iterator[Contender]:
    weights = None
    if with_official and config.name != "nano":
        weights = _random_official(config, str(device))
        yield from _all_official(weights, config, frames, boxes, device, dtypes)
    default = choose_precision("auto", config, device)
    for ours in dict.fromkeys((*(Precision(dtype, dtype) for dtype in dtypes), default)):
        yield _ours(f"ours {ours}", _network(config, str(device), ours, weights), frames, boxes)
    approximated = approximate(config, approximations or Approximations())
    if approximated != config:
        network = _network(approximated, str(device), default, weights)
        yield _ours(f"ours {default}, {approximated.approximations}", network, frames, boxes)
    if with_zoom:
        yield _ours(f"ours {default}, zoom", _network(config, str(device), default, weights), frames, boxes, zoom=True)


def _frames(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    scene = Tabletop(height_px=height, width_px=width)
    return [scene.render(index).image_rgb for index in range(count)]


def _random_official(config: ModelConfig, device: str) -> torch.nn.Module:
    predictor: torch.nn.Module = build_official(config.name, config.image_size, device=device)
    randomise(predictor, _SEED, _OBJECT_SCORE_BIAS)
    return predictor


def _all_official(
    predictor: torch.nn.Module,
    config: ModelConfig,
    frames: list[NDArray[np.uint8]],
    boxes: list[tuple[float, ...]],
    device: torch.device,
    dtypes: Sequence[torch.dtype],
) -> Iterator[Contender]:
    for dtype in dtypes:
        yield _official(f"official {_SHORT[dtype]}", predictor, frames, boxes, device, dtype)
    if device.type == "cuda":
        compiled = build_official(config.name, config.image_size, device=str(device), compiled=True)
        compiled.load_state_dict(predictor.state_dict())
        yield _official("official compiled bfloat16", compiled, frames, boxes, device, torch.bfloat16)


def _network(config: ModelConfig, device: str, precision: Precision, weights: torch.nn.Module | None) -> SAM2:
    own = "embedded" if config.name == "nano" else "random"
    network = load_network(
        config.name,
        device=device,
        weights=own,
        image_size=config.image_size,
        precision="float32",
        approximations=config.approximations,
    )
    if weights is not None:
        network.load_state_dict(weights.state_dict())
    elif own == "random":
        randomise(network, _SEED, _OBJECT_SCORE_BIAS)
    network.compute_in(precision.image_encoder, precision.memory_attention)
    return network


def _ours(
    name: str, network: SAM2, frames: list[NDArray[np.uint8]], boxes: list[tuple[float, ...]], zoom: bool = False
) -> Contender:
    tracker = Tracker(network, zoom=zoom)
    for number, box in enumerate(boxes):
        tracker.add_prompt(str(number), box=box)

    def step(index: int) -> Masks:
        return {tracked.object_id: tracked.mask for tracked in tracker.step(frames[index])}

    return Contender(name, network, step)


def _compiled(
    contenders: Sequence[Contender],
    name: str,
    frames: list[NDArray[np.uint8]],
    boxes: list[tuple[float, ...]],
    progress: Callable[[str], None],
) -> Contender:
    """A compiled version of the contender with this name."""
    progress(f"compiling {name}")
    plain = next(contender.network for contender in contenders if contender.name == name)
    assert isinstance(plain, SAM2)
    started = time.perf_counter()
    network = compile_network(plain)
    return replace(_ours(f"{name}, compiled", network, frames, boxes), compile_s=time.perf_counter() - started)


def _official(
    name: str,
    predictor: torch.nn.Module,
    frames: list[NDArray[np.uint8]],
    boxes: list[tuple[float, ...]],
    device: torch.device,
    dtype: torch.dtype,
) -> Contender:
    stream = OfficialStream(predictor, frames)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    prompted = False

    def step(index: int) -> Masks:
        nonlocal prompted
        with autocast:
            if not prompted:  # in the first frame, so that its encoding is part of it on both sides
                for number, box in enumerate(boxes):
                    stream.add_box(str(number), box)
                prompted = True
            return stream.step(index)

    return Contender(name, predictor, step)


def _boxes(count: int, height: int, width: int) -> Iterator[tuple[float, ...]]:
    """``count`` boxes x0, y0, x1, y1 in a grid over the image."""
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    for number in range(count):
        x, y = number % columns, number // columns
        yield (
            width * (x + 0.2) / columns,
            height * (y + 0.2) / rows,
            width * (x + 0.8) / columns,
            height * (y + 0.8) / rows,
        )


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    extras = [n for n in ("avx512_f", "avx512_bf16", "amx_bf16") if found.get(n)]
    return f"{found.get('cpu_name', 'CPU')}{' with ' + ', '.join(extras) if extras else ''}"
