"""What the official code of EdgeTAM and EfficientTAM answers, from a process that has it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from official_cases import Case
from official_play import Answer, FrameAnswer, Setting

from sam2_ros.evaluation.official_relatives import environment, family_of

TIMEOUT_S = 3600.0
_HERE = Path(__file__).parent


def answers_of(model: str, function: str, folder: Path, /, **arguments: Any) -> dict[str, NDArray]:
    """Arrays from a function of ``official_worker``; the network's weights are in ``folder / "weights.pt"``.

    Raises:
        ImportError: the official code of that model is not installed.
        RuntimeError: it failed, with the end of what it said.
    """
    family = family_of(model)
    assert family is not None, f"{model} has no official code of its own"
    done = subprocess.run(
        [sys.executable, "-m", "official_worker", function, str(folder)],
        input=json.dumps(arguments),
        env=environment(family, _HERE),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the official code of {family} failed: {done.stderr[-2000:]}")
    with np.load(folder / "answers.npz") as arrays:
        return dict(arrays)


def play_elsewhere(
    setting: Setting, cases: list[Case], size_hw: tuple[int, int], num_frames: int, folder: Path
) -> dict[str, list[FrameAnswer]]:
    """The official answers to cases that are built alike, by the cases' names."""
    arrays = answers_of(
        setting.model,
        "play",
        folder,
        setting=asdict(setting),
        cases=[case.name for case in cases],
        size_hw=size_hw,
        count=num_frames,
    )
    return {case.name: _frames(arrays, number, num_frames) for number, case in enumerate(cases)}


def _frames(arrays: dict[str, NDArray], number: int, num_frames: int) -> list[FrameAnswer]:
    frames = []
    for index in range(num_frames):
        where = f"{number}/{index}/"
        ids = sorted({int(name.split("/")[2]) for name in arrays if name.startswith(where) and name.endswith("/score")})
        objects = {i: Answer(arrays[f"{where}{i}/logits"], float(arrays[f"{where}{i}/score"])) for i in ids}
        frames.append(FrameAnswer(objects, arrays[f"{where}label_image"]))
    return frames
