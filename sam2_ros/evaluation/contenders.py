"""Who takes part in a comparison of latencies: the official code and ours, in each type and with each engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.demo.tabletop.scene import Tabletop
from sam2_ros.evaluation.latency import Contender, Masks
from sam2_ros.evaluation.official import OfficialStream, build_official, randomise
from sam2_ros.model.config import ModelConfig
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.loading import Precision, choose_precision, load_network
from sam2_ros.tracking.runtime.compiled import compile_network
from sam2_ros.tracking.runtime.encoder_engine import (
    ENCODER_ENGINES,
    choose_encoder_engine,
    is_installed,
    use_encoder_engine,
)
from sam2_ros.tracking.tracker import Tracker

SHORT_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_SEED, _OBJECT_SCORE_BIAS = 7, 4.0  # of the random weights; the bias makes objects visible


@dataclass(frozen=True)
class Task:
    """What all contenders do: follow the things in these boxes, from frame 0 on."""

    frames: list[NDArray[np.uint8]]  # (H, W, 3) each
    boxes: list[tuple[float, ...]]  # x0, y0, x1, y1

    @classmethod
    def of_tabletop(cls, num_frames: int, num_objects: int, height: int, width: int) -> Task:
        scene = Tabletop(height_px=height, width_px=width)
        frames = [scene.render(index).image_rgb for index in range(num_frames)]
        return cls(frames, list(_boxes(num_objects, height, width)))


@dataclass(frozen=True)
class Choice:
    """Our default for a model on a device, and other engines that are to be timed."""

    precision: Precision
    engine: str  # of the image encoder
    engines: tuple[str, ...]  # that are timed beside PyTorch, the default's among them

    @property
    def name(self) -> str:
        return f"ours {self.precision}" if self.engine == "torch" else f"ours {self.precision}, {self.engine}"


def choose(config: ModelConfig, device: torch.device, encoder_engine: str) -> Choice:
    """Our default with that engine; with "all" the one of "auto", and the others beside it."""
    precision = choose_precision("auto", config, device)
    asked = "auto" if encoder_engine == "all" else encoder_engine
    engine = choose_encoder_engine(asked, config, device, precision.image_encoder)
    others = ENCODER_ENGINES[1:] if encoder_engine == "all" else (engine,)
    timed = (other for other in others if other != "torch" and device.type == "cpu" and is_installed(other))
    return Choice(precision, engine, tuple(timed))


Weights = dict[str, Tensor] | Path | None  # a state dict, a checkpoint file, or the model's own (nano) or random ones


def network_of(
    config: ModelConfig, device: torch.device, precision: Precision, weights: Weights, engine: str = "torch"
) -> SAM2:
    """Ours, ready to run."""
    has_own = config.name == "nano" or isinstance(weights, Path)
    network = load_network(
        config.name,
        checkpoint=weights if isinstance(weights, Path) else None,
        device=str(device),
        weights="embedded" if has_own else "random",
        image_size=config.image_size,
        precision="float32",
        approximations=config.approximations,
    )
    if isinstance(weights, dict):
        network.load_state_dict(weights)
    elif not has_own:
        randomise(network, _SEED, _OBJECT_SCORE_BIAS)
    network.compute_in(precision.image_encoder, precision.memory_attention)
    network.requires_grad_(False)  # as of the official one, below
    use_encoder_engine(network, engine)
    return network


def our_contender(name: str, network: SAM2, task: Task, zoom: bool = False, follow_load: bool = False) -> Contender:
    tracker = Tracker(network, zoom=zoom, follow_load=follow_load)
    for number, box in enumerate(task.boxes):
        tracker.add_prompt(str(number), box=box)

    def step(index: int) -> Masks:
        return {tracked.object_id: tracked.mask for tracked in tracker.step(task.frames[index])}

    return Contender(name, network, step)


def compiled_contender(
    contenders: Sequence[object], name: str, task: Task, backend: str, progress: Callable[[str], None]
) -> Contender:
    """A compiled version of the contender with this name; ``backend`` of ``torch.compile``."""
    progress(f"compiling {name}")
    plain = next(each.network for each in contenders if isinstance(each, Contender) and each.name == name)
    assert isinstance(plain, SAM2)
    started = time.perf_counter()
    network = compile_network(plain, backend)
    return replace(our_contender(f"{name}, compiled", network, task), compile_s=time.perf_counter() - started)


def random_official(config: ModelConfig, device: torch.device) -> torch.nn.Module:
    """The official predictor with random weights, the same ones every time."""
    predictor: torch.nn.Module = build_official(config.name, config.image_size, device=str(device))
    randomise(predictor, _SEED, _OBJECT_SCORE_BIAS)
    return predictor.requires_grad_(False)  # the counter of operations asks for the gradients of parameters


def official_contenders(
    predictor: torch.nn.Module, config: ModelConfig, task: Task, device: torch.device, dtypes: Sequence[torch.dtype]
) -> Iterator[Contender]:
    """The official predictor in each type, and compiled on a GPU."""
    for dtype in dtypes:
        yield _official(f"official {SHORT_NAMES[dtype]}", predictor, task, device, dtype)
    if device.type == "cuda":
        compiled = build_official(config.name, config.image_size, device=str(device), compiled=True)
        compiled.load_state_dict(predictor.state_dict())
        yield _official("official compiled bfloat16", compiled, task, device, torch.bfloat16)


def _official(name: str, predictor: torch.nn.Module, task: Task, device: torch.device, dtype: torch.dtype) -> Contender:
    stream = OfficialStream(predictor, task.frames)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    prompted = False

    def step(index: int) -> Masks:
        nonlocal prompted
        with autocast:
            if not prompted:  # in the first frame, so that its encoding is part of it on both sides
                for number, box in enumerate(task.boxes):
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
