"""What is played to our tracker and to the official predictor: a script of prompts over 24 frames, one a case.

Places are fractions of the image's width and height, so that a case fits every size of model and camera.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

NUM_FRAMES = 24  # more than 16, or the official code has fewer pointers than a stream

Point = tuple[float, float, int]  # x, y, label
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Prompt:
    """A new object is segmented from it; a known one is tracked into the frame first and corrected by it."""

    frame: int
    object_id: int = 1
    points: tuple[Point, ...] = ()
    box: Box | None = None
    ellipse: Box | None = None  # a mask: the ellipse in this box


@dataclass(frozen=True)
class Remove:
    """The object is forgotten before this frame."""

    frame: int
    object_id: int


@dataclass(frozen=True)
class ClearPrompts:
    """Before this frame, ``prompted_frame`` stops being a conditioning frame of the object."""

    frame: int
    prompted_frame: int
    object_id: int = 1


@dataclass(frozen=True)
class Reset:
    """Everything is forgotten before this frame."""

    frame: int


@dataclass(frozen=True)
class ShiftScore:
    """From this frame on the model's object score is higher by this much, on both sides."""

    frame: int
    by: float


Action = Prompt | Remove | ClearPrompts | Reset | ShiftScore


@dataclass(frozen=True)
class Case:
    name: str
    actions: tuple[Action, ...]
    corrections_are_conditioning: bool = False
    # Other sizes of the memory: fields of our config and their values; and the same for the official builder.
    memory: tuple[tuple[str, int], ...] = ()
    overrides: tuple[str, ...] = ()
    seen_frames: frozenset[int] | None = None  # where an object must be visible; None: in every frame it exists


def case(name: str, *actions: Action, **settings) -> Case:  # type: ignore[no-untyped-def]
    return Case(name, actions, **settings)


def built_alike(case: Case) -> Case:
    """The same for all cases that differ in what is played alone: they can share their models."""
    return replace(case, name="", actions=(), seen_frames=None)


def _except(*absent: int) -> frozenset[int]:
    return frozenset(range(NUM_FRAMES)) - frozenset(absent)


ON_DISC, BESIDE = (0.27, 0.5, 1), (0.6, 0.2, 0)
CLICK = Prompt(0, points=(ON_DISC,))
BOX = (0.15, 0.3, 0.4, 0.7)
GONE, BACK = -60.0, 60.0  # logits; far more than what a random model's scores spread over

CASES = (
    case("one click", CLICK),
    case("clicks with negatives", Prompt(0, points=(ON_DISC, (0.2, 0.45, 1), BESIDE, (0.9, 0.9, 0)))),
    case("box", Prompt(0, box=BOX)),
    case("box and click", Prompt(0, points=(ON_DISC,), box=BOX)),
    case("mask", Prompt(0, ellipse=BOX)),
    case("first prompt at frame 5", Prompt(5, points=(ON_DISC,))),
    case("positive correction", CLICK, Prompt(6, points=((0.4, 0.55, 1),))),
    case("negative correction", CLICK, Prompt(9, points=((0.7, 0.3, 0),))),
    case(
        "corrections in a row",
        Prompt(0, box=BOX),
        Prompt(7, points=((0.4, 0.5, 1), (0.8, 0.2, 0))),
        Prompt(8, box=(0.3, 0.3, 0.6, 0.7)),
        Prompt(14, points=((0.55, 0.5, 1),)),
    ),
    case(
        "clicks one after the other",
        Prompt(0, box=BOX),
        Prompt(0, points=(ON_DISC,)),
        Prompt(0, points=(BESIDE,)),
        Prompt(8, points=((0.4, 0.5, 1),)),
        Prompt(8, points=((0.8, 0.2, 0),)),
    ),
    case("mask, then a click on it", Prompt(0, ellipse=BOX), Prompt(0, points=((0.35, 0.55, 1),))),
    case(
        "positive and negative correction, kept as conditioning",
        CLICK,
        Prompt(5, points=((0.35, 0.5, 1),)),
        Prompt(11, points=((0.7, 0.3, 0),)),
        corrections_are_conditioning=True,
    ),
    case(
        "mask on a tracked frame, kept as conditioning",
        CLICK,
        Prompt(7, ellipse=(0.3, 0.35, 0.55, 0.75)),
        corrections_are_conditioning=True,
    ),
    case("object added at frame 10", CLICK, Prompt(10, 2, box=(0.55, 0.1, 0.9, 0.5))),
    case(
        "object removed, its id given again",
        CLICK,
        Prompt(0, 2, points=((0.7, 0.3, 1),)),
        Remove(9, 1),
        Prompt(15, 1, box=(0.4, 0.3, 0.7, 0.7)),
    ),
    case("two objects that overlap", Prompt(0, ellipse=BOX), Prompt(0, 2, points=((0.35, 0.55, 1),))),
    case(
        "absence and reappearance",
        CLICK,
        ShiftScore(8, GONE),
        ShiftScore(13, BACK),
        seen_frames=_except(8, 9, 10, 11, 12),
    ),
    case(
        "correction while absent",
        Prompt(0, box=BOX),
        ShiftScore(8, GONE),
        Prompt(10, points=((0.45, 0.5, 1),)),
        ShiftScore(12, BACK),
        seen_frames=_except(8, 9, 10, 11),
    ),
    case(
        "correction at the reappearance",
        CLICK,
        ShiftScore(6, GONE),
        ShiftScore(9, BACK),
        Prompt(9, box=BOX),
        seen_frames=_except(6, 7, 8),
    ),
    case("biased towards absent", ShiftScore(0, GONE), CLICK, seen_frames=frozenset()),
    case("mask, then biased towards absent", ShiftScore(0, GONE), Prompt(0, ellipse=BOX), seen_frames=frozenset({0})),
    case(
        "clear_prompts of the first frame",
        CLICK,
        Prompt(4, points=((0.35, 0.5, 1),)),
        ClearPrompts(6, 0),
        corrections_are_conditioning=True,
    ),
    case(
        "clear_prompts of a correction",
        CLICK,
        Prompt(5, points=((0.7, 0.3, 0),)),
        ClearPrompts(7, 5),
        corrections_are_conditioning=True,
    ),
    case("reset", CLICK, Prompt(0, 2, box=BOX), Reset(7), Prompt(7, 1, box=(0.3, 0.3, 0.6, 0.7))),
    case(
        "other memory sizes",
        CLICK,
        Prompt(3, points=((0.3, 0.5, 1),)),
        Prompt(6, points=((0.7, 0.3, 0),)),
        Prompt(9, points=((0.4, 0.5, 1),)),
        corrections_are_conditioning=True,
        memory=(("num_spatial_memories", 4), ("max_pointers", 6), ("max_conditioning_in_attention", 2)),
        overrides=(
            "++model.num_maskmem=4",
            "++model.max_obj_ptrs_in_encoder=6",
            "++model.max_cond_frames_in_attn=2",
        ),
    ),
)
