"""Latency of our tracker and of the official predictor, with the same weights, images and boxes, in one run."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sam2_ros.evaluation.busy import busy_process
from sam2_ros.evaluation.comparison import FIXED_THREADS, Comparison
from sam2_ros.evaluation.contenders import (
    SHORT_NAMES,
    Choice,
    Task,
    Weights,
    choose,
    compiled_contender,
    network_of,
    official_contenders,
    our_contender,
    random_official,
)
from sam2_ros.evaluation.latency import Contender, Timeable, frames_needed, measure, product_tflop_per_s
from sam2_ros.evaluation.official_process import OfficialProcess
from sam2_ros.evaluation.official_relatives import family_of
from sam2_ros.model.config import Approximations, ModelConfig, approximate, model_config
from sam2_ros.tracking.loading import Precision, check_device, has_fast_bfloat16
from sam2_ros.tracking.zoom.window import MAX_ZOOMED_OBJECTS

_SETTLE_FRAMES = 40  # beside a busy process, before the first that counts: threads follow the load after half a second


@dataclass(frozen=True)
class Variants:
    """Who takes part beside ours in each type.

    Args:
        official: the official code, where it has the model; of EdgeTAM and EfficientTAM with one object only, with more
            it fails.
        emulated: bfloat16 also without hardware support, which is a hundred times slower.
        approximations, compiled, zoom: our default with each; compiled on a GPU always.
        compile_backend: of ``torch.compile``, for ours.
        encoder_engine: of our default, see ``load_network``; "all": every one that is installed as well.
        busy_threads: our default again beside a process with so many busy threads, with and without threads that
            follow the load; 0: not.
        busy_frames: that are timed there.
    """

    official: bool = True
    emulated: bool = False
    approximations: Approximations | None = None
    compiled: bool = False
    compile_backend: str = "inductor"
    zoom: bool = False
    encoder_engine: str = "auto"
    busy_threads: int = 0
    busy_frames: int = 60


def compare_latency(
    model: str,
    num_objects: int = 1,
    timed_frames: int = 5,
    image_size: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    size_hw: tuple[int, int] = (480, 640),
    variants: Variants | None = None,
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
        size_hw: of the camera image, px.
        variants: who takes part.
        progress: called with a description of each step.

    Raises:
        ValueError: an unknown model, size, engine or device, or numbers below 1.
        ImportError: the official package is not installed.
    """
    variants = variants or Variants()
    _check(num_objects, timed_frames, threads, device, variants)
    torch.set_num_threads(threads or torch.get_num_threads())
    config, where = model_config(model, image_size), torch.device(device)
    warm_frames = max(config.num_spatial_memories, config.max_pointers) + 1
    task = Task.of_tabletop(frames_needed(warm_frames, timed_frames), num_objects, *size_hw)
    ours = choose(config, where, variants.encoder_engine)
    dtypes = list(SHORT_NAMES) if variants.emulated or has_fast_bfloat16(where) else [torch.float32]
    with _contenders(config, variants, task, where, dtypes, ours) as (contenders, weights):
        if variants.compiled or where.type == "cuda":
            name, backend = f"ours {ours.precision}", variants.compile_backend
            contenders.append(compiled_contender(contenders, name, task, backend, progress))
        with torch.inference_mode():
            measured = measure(contenders, warm_frames, timed_frames, where, progress)
            ceilings = {SHORT_NAMES[dtype]: product_tflop_per_s(where, dtype) for dtype in dtypes}
        busy_ms = _beside_a_busy_process(config, variants, task, where, ours, weights, progress)
    compiled = (c for c in contenders if isinstance(c, Contender) and c.compile_s is not None)
    return Comparison(
        model=config.name,
        image_size=config.image_size,
        num_objects=num_objects,
        size_hw=size_hw,
        device=_name_of(where),
        threads=torch.get_num_threads(),
        measured=measured,
        default=ours.name,
        ceiling_tflop_per_s=ceilings,
        compile_s={contender.name: contender.compile_s or 0.0 for contender in compiled},
        busy_threads=variants.busy_threads,
        busy_ms=busy_ms,
    )


def _check(num_objects: int, timed_frames: int, threads: int | None, device: str, variants: Variants) -> None:
    if num_objects < 1 or timed_frames < 1:
        raise ValueError(f"expected at least one object and one frame, got {num_objects} and {timed_frames}")
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least one thread, got {threads}")
    if variants.busy_threads < 0 or variants.busy_frames < 1:
        raise ValueError(
            f"expected 0 or more busy threads and at least one frame beside them, got {variants.busy_threads} and "
            f"{variants.busy_frames}"
        )
    if variants.zoom and num_objects > MAX_ZOOMED_OBJECTS:
        raise ValueError(f"zoom is for at most {MAX_ZOOMED_OBJECTS} objects, got {num_objects}")
    if (backend := variants.compile_backend) not in (known := torch.compiler.list_backends(None)):
        raise ValueError(f"compile backend: expected one of {', '.join(known)}, got {backend!r}")
    check_device(device)


@contextlib.contextmanager
def _contenders(
    config: ModelConfig,
    variants: Variants,
    task: Task,
    device: torch.device,
    dtypes: Sequence[torch.dtype],
    ours: Choice,
) -> Iterator[tuple[list[Timeable], Weights]]:
    """All contenders, and the weights that they share."""
    with contextlib.ExitStack() as stack:
        found: list[Timeable] = []
        weights: Weights = None
        if variants.official and family_of(config.name) is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sam2_ros_")))
            process = stack.enter_context(contextlib.closing(OfficialProcess(config, task, device, dtypes, folder)))
            weights = process.weights
            found += process.contenders
        elif variants.official and config.name != "nano":
            predictor = random_official(config, device)
            weights = dict(predictor.state_dict())
            found += official_contenders(predictor, config, task, device, dtypes)
        found += _ours(config, variants, task, device, dtypes, ours, weights)
        yield found, weights


def _ours(
    config: ModelConfig,
    variants: Variants,
    task: Task,
    device: torch.device,
    dtypes: Sequence[torch.dtype],
    ours: Choice,
    weights: Weights,
) -> Iterator[Contender]:
    for precision in dict.fromkeys((*(Precision(dtype, dtype) for dtype in dtypes), ours.precision)):
        yield our_contender(f"ours {precision}", network_of(config, device, precision, weights), task)
    for engine in ours.engines:
        network = network_of(config, device, ours.precision, weights, engine)
        yield our_contender(f"ours {ours.precision}, {engine}", network, task)
    approximated = approximate(config, variants.approximations or Approximations())
    if approximated != config:
        network = network_of(approximated, device, ours.precision, weights, ours.engine)
        yield our_contender(f"{ours.name}, {approximated.approximations}", network, task)
    if variants.zoom:
        network = network_of(config, device, ours.precision, weights, ours.engine)
        yield our_contender(f"{ours.name}, zoom", network, task, zoom=True)


def _beside_a_busy_process(
    config: ModelConfig,
    variants: Variants,
    task: Task,
    device: torch.device,
    ours: Choice,
    weights: Weights,
    progress: Callable[[str], None],
) -> dict[str, list[float]]:
    """Milliseconds of each frame of our default, one after the other: each has the machine's load to itself."""
    busy_ms: dict[str, list[float]] = {}
    if not variants.busy_threads:
        return busy_ms
    threads = torch.get_num_threads()
    for engine, follows in itertools.product(dict.fromkeys((*ours.engines, "torch")), (True, False)):
        network = network_of(config, device, ours.precision, weights, engine)
        name = f"ours {ours.precision}" + ("" if engine == "torch" else f", {engine}")
        contender = our_contender(name if follows else name + FIXED_THREADS, network, task, follow_load=follows)
        count = _SETTLE_FRAMES + variants.busy_frames
        with busy_process(variants.busy_threads):
            for index in range(count):
                progress(f"frame {index + 1}/{count} beside a busy process, {contender.name}")
                spent_ms, _ = contender.timed(_there_and_back(index, len(task.frames)), device)
                if index >= _SETTLE_FRAMES:
                    busy_ms.setdefault(contender.name, []).append(spent_ms)
        torch.set_num_threads(threads)
    return busy_ms


def _there_and_back(index: int, count: int) -> int:
    """0, 1, ... count - 1, count - 2, ... 0, 1, ..."""
    phase = index % max(2 * (count - 1), 1)
    return min(phase, 2 * (count - 1) - phase)


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    extras = [n for n in ("avx512_f", "avx512_bf16", "amx_bf16") if found.get(n)]
    return f"{found.get('cpu_name', 'CPU')}{' with ' + ', '.join(extras) if extras else ''}"
