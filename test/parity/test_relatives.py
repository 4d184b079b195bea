"""EdgeTAM and EfficientTAM against their official code, which runs in a process of its own.

That code follows one object: with two, EdgeTAM's fails, and an object that is added later erases others. So several
objects are compared with runs of our own with one each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from official_cases import CASES, NUM_FRAMES, Case, ClearPrompts, Prompt, Remove, ShiftScore, built_alike
from official_elsewhere import answers_of, play_elsewhere
from official_parts import Parts, TransformersParts
from official_play import (
    MIN_IOU,
    TOLERANCE_LOGITS,
    Clip,
    Setting,
    assert_not_trivial,
    compare,
    iou,
    ours_of,
    play_ours,
)
from synthetic_frames import synthetic_frames

from sam2_ros.evaluation.official_relatives import FAMILIES, environment, family_of
from sam2_ros.model.checkpoint import infer_model_name, load_checkpoint, read_state_dict
from sam2_ros.model.config import MODELS, model_config
from sam2_ros.model.sam2 import SAM2

HEIGHT_PX, WIDTH_PX = 480, 640  # of the camera image
SMALL_PX = 256  # the least that EdgeTAM's 16 x 16 windows divide
TOLERANCE = 1e-4  # of the largest value, of a part
RELATIVES = [name for name in MODELS if family_of(name) is not None]


def _objects(case: Case) -> set[int]:
    return {action.object_id for action in case.actions if isinstance(action, Prompt)}


ALONE = [
    case.name
    for case in CASES
    if _objects(case) == {1} and not any(isinstance(action, Remove) for action in case.actions)
]
# EfficientTAM's predictor is SAM 2's first one, which takes no prompt back.
ALONE_OLDER = [
    case.name
    for case in CASES
    if case.name in ALONE and not any(isinstance(action, ClearPrompts) for action in case.actions)
]
FEW = ["one click", "box", "mask", "corrections in a row", "absence and reappearance"]
ONE = ["corrections in a row"]


@dataclass(frozen=True)
class Run:
    setting: Setting
    cases: tuple[str, ...]
    is_long: bool = True


def runs() -> Iterator[Run]:
    """Few scripts of each kind of network at the small size; all at 512 px, and every entry at its own size."""
    table: list[tuple[str, int, bool, list[str], bool]] = [
        ("edgetam", SMALL_PX, True, FEW, False),
        ("edgetam", SMALL_PX, False, ONE, False),
        ("efficienttam_ti", SMALL_PX, True, ONE, False),
        ("efficienttam_ti_1", SMALL_PX, False, ONE, False),
        ("efficienttam_ti_2", SMALL_PX, True, ONE, False),
        ("edgetam", SMALL_PX, True, ALONE, True),
        ("efficienttam_ti_1", SMALL_PX, True, ALONE_OLDER, True),
        ("efficienttam_ti_2", SMALL_PX, False, ALONE_OLDER, True),
        ("edgetam", 512, True, ALONE, True),
        ("edgetam", 512, False, FEW, True),
        ("edgetam", 1024, True, FEW, True),
        *((f"efficienttam_{size}_512x512", 512, True, FEW, True) for size in ("ti", "s")),
        *((f"efficienttam_{size}{kind}", 512, True, ONE, True) for size in ("ti", "s") for kind in ("", "_1", "_2")),
        *((f"efficienttam_{size}{kind}", 1024, True, ONE, True) for size in ("ti", "s") for kind in ("", "_1", "_2")),
    ]
    for model, image_size, postprocess, names, is_long in table:
        yield Run(Setting(model, image_size, postprocess), tuple(names), is_long)


def as_param(run: Run) -> Any:
    marks = [pytest.mark.long] if run.is_long else []
    scripts = run.cases[0].replace(" ", "_") if len(run.cases) == 1 else f"{len(run.cases)}_scripts"
    return pytest.param(run, marks=marks, id=f"{run.setting}-{scripts}")


@pytest.fixture(scope="module", autouse=True)
def relatives() -> None:
    try:
        for family in FAMILIES:
            environment(family)
    except ImportError as error:
        pytest.skip(str(error))


@lru_cache(maxsize=1)
def clip(image_size: int) -> Clip:
    return Clip(synthetic_frames(NUM_FRAMES, HEIGHT_PX, seed=3, width_px=WIDTH_PX), image_size)


def test_every_script_that_the_official_code_can_play_is_played() -> None:
    assert len(ALONE) == len(CASES) - 4
    assert len(ALONE_OLDER) == len(ALONE) - 2
    at_their_own_size = {
        run.setting.model for run in runs() if run.setting.image_size == MODELS[run.setting.model].image_size
    }
    assert at_their_own_size == set(RELATIVES)


@pytest.mark.parametrize("run", [as_param(run) for run in runs()])
def test_tracking(add_row, run: Run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    setting, frames = run.setting, clip(run.setting.image_size)
    cases = sorted((case for case in CASES if case.name in run.cases), key=lambda case: repr(built_alike(case)))
    for number, (building, group) in enumerate(groupby(cases, key=built_alike)):
        folder = tmp_path / str(number)
        folder.mkdir()
        alike = list(group)
        official = play_elsewhere(setting, alike, (HEIGHT_PX, WIDTH_PX), NUM_FRAMES, folder)
        ours = ours_of(setting, building)
        load_checkpoint(ours, folder / "weights.pt")
        this_clip = Clip(frames.frames, setting.image_size)
        for case in alike:
            actual = play_ours(ours, setting, case, this_clip)
            assert_not_trivial(official[case.name], case.seen_frames)
            difference = compare(actual, official[case.name])
            worst = max(difference.worst_logit, difference.worst_score_logit)
            add_row(case.name, setting.model, setting.image_size, setting.postprocess, worst, difference.min_iou)
            assert worst < TOLERANCE_LOGITS, case.name
            assert difference.min_iou >= MIN_IOU, case.name


PARTS = [("edgetam", 256, False), ("edgetam", 512, False), ("edgetam", 1024, True)]
PARTS += [(name, 256, False) for name in ("efficienttam_ti", "efficienttam_ti_1", "efficienttam_s_2")]
PARTS += [(name, MODELS[name].image_size, True) for name in RELATIVES if name != "edgetam"]


@pytest.mark.parametrize(
    ("model", "image_size"),
    [pytest.param(name, size, marks=[pytest.mark.long] if is_long else []) for name, size, is_long in PARTS],
)
def test_parts(add_row, model: str, image_size: int, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Trunk, neck, memory encoder with the perceiver, and memory attention over one to seven memories."""
    expected = answers_of(model, "parts", tmp_path, model=model, image_size=image_size)
    with torch.inference_mode():
        actual = Parts(model, image_size).of_ours(loaded(model, image_size, tmp_path / "weights.pt"))
    add_row("parts", model, image_size, None, worst_difference(actual, expected))


@pytest.mark.parametrize("image_size", [256, pytest.param(512, marks=pytest.mark.long)])
def test_layout_of_transformers(add_row, image_size: int, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """What EdgeTamVideoModel has saved is our network, with nothing missing or left over."""
    expected = answers_of("edgetam", "transformers", tmp_path, image_size=image_size)
    assert infer_model_name(read_state_dict(tmp_path / "saved")) == "edgetam"
    with torch.inference_mode():
        network = loaded("edgetam", image_size, tmp_path / "saved")
        actual = TransformersParts(image_size).of_ours(network)
    add_row("parts, transformers", "edgetam", image_size, None, worst_difference(actual, expected))


def loaded(model: str, image_size: int, weights: Path) -> SAM2:
    with torch.device("meta"):  # initialising takes longer than loading
        network = SAM2(model_config(model, image_size)).eval()
    network = network.to_empty(device="cpu")
    load_checkpoint(network, weights)
    return network


def worst_difference(actual: dict[str, torch.Tensor], expected: dict[str, NDArray[np.float32]]) -> float:
    """Of all parts; relative to the largest value of each."""
    assert actual.keys() == expected.keys()
    worst = 0.0
    for name, theirs in expected.items():
        ours = actual[name].numpy()
        assert ours.shape == theirs.shape, name
        assert theirs.std() > 0, f"{name}: nothing to compare"
        difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        worst = max(worst, difference)
        assert difference < TOLERANCE, f"{name}: differs by {difference} of the largest value"
    return worst


@pytest.mark.parametrize(
    ("model", "image_size"),
    [
        pytest.param("edgetam", SMALL_PX),
        pytest.param("efficienttam_ti_1", SMALL_PX),
        pytest.param("edgetam", 512, marks=pytest.mark.long),
        pytest.param("efficienttam_ti_512x512", 512, marks=pytest.mark.long),
    ],
)
def test_three_objects_as_each_alone(add_row, model: str, image_size: int) -> None:  # type: ignore[no-untyped-def]
    """Two from the first frame on, one added later; one is corrected, and all are absent for a while."""
    from sam2_ros.evaluation.official import randomise

    setting = Setting(model, image_size, True)
    network = ours_of(setting, built_alike(CASES[0]))
    randomise(network, seed=7, object_score_bias=4.0)
    scripts = {
        1: (Prompt(0, 1, points=((0.27, 0.5, 1),)), Prompt(9, 1, points=((0.7, 0.3, 0),))),
        2: (Prompt(0, 2, box=(0.55, 0.1, 0.9, 0.5)),),
        3: (Prompt(6, 3, ellipse=(0.3, 0.35, 0.55, 0.75)),),
    }
    absence = (ShiftScore(12, -60.0), ShiftScore(15, 60.0))
    frames = clip(image_size)
    together = Case("together", (*absence, *(action for script in scripts.values() for action in script)))
    found = play_ours(network, setting, together, Clip(frames.frames, image_size))
    assert len(found[-1].objects) == 3
    worst, worst_iou = 0.0, 1.0
    for object_id, script in scripts.items():
        alone = play_ours(network, setting, Case("alone", (*absence, *script)), Clip(frames.frames, image_size))
        masks = []
        for ours, expected in zip(found, alone, strict=True):
            if object_id not in expected.objects:
                continue
            a, b = ours.objects[object_id].low_res_hw, expected.objects[object_id].low_res_hw
            worst = max(worst, float(np.abs(a - b).max()))
            masks.append((a > 0, b > 0))
        worst_iou = min(worst_iou, iou(*(np.stack(side) for side in zip(*masks, strict=True))))
    add_row("three objects as each alone", model, image_size, True, worst, worst_iou)
    assert worst < TOLERANCE_LOGITS
    assert worst_iou >= MIN_IOU
