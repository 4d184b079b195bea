"""Runs in a process that has the official code of EdgeTAM or EfficientTAM; ``official_elsewhere`` starts it.

``python -m official_worker FUNCTION FOLDER``, the arguments as JSON on standard input. The network's weights come back
as ``weights.pt`` in the folder, arrays as ``answers.npz``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from official_cases import CASES
from official_parts import Parts, TransformersParts
from official_play import Clip, OfficialPlay, Setting, official_of
from safetensors.torch import save_file
from synthetic_frames import synthetic_frames

Arrays = dict[str, NDArray]


def play(folder: Path, setting: Mapping[str, Any], cases: list[str], size_hw: tuple[int, int], count: int) -> Arrays:
    """Each case's answers, under case/frame/what. The cases must be built alike."""
    by_name = {case.name: case for case in CASES}
    chosen = [by_name[name] for name in cases]
    played = Setting(**setting)
    predictor = official_of(played, chosen[0])
    torch.save({"model": predictor.state_dict()}, folder / "weights.pt")
    adapter = Adapter(predictor)
    clip = Clip(synthetic_frames(count, size_hw[0], seed=3, width_px=size_hw[1]), played.image_size)
    arrays: Arrays = {}
    for number, case in enumerate(chosen):
        for index, frame in enumerate(OfficialPlay(adapter, played, case, clip).play()):
            where = f"{number}/{index}"
            arrays[f"{where}/label_image"] = frame.label_image.astype(np.int16)
            for object_id, answer in frame.objects.items():
                arrays[f"{where}/{object_id}/logits"] = answer.low_res_hw
                arrays[f"{where}/{object_id}/score"] = np.array(answer.score_logit)
    return arrays


class Adapter:
    """An official predictor with what SAM 2's latest one has and EfficientTAM's older one lacks."""

    def __init__(self, predictor: Any) -> None:
        self.__dict__["_predictor"] = predictor
        if not hasattr(predictor, "add_new_points_or_box"):
            self.__dict__["add_new_points_or_box"] = self._add_new_points_or_box
            _keep_object_scores(predictor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._predictor, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._predictor, name)

    def _add_new_points_or_box(
        self, state: Any, frame: int, object_id: int, points: Any = (), labels: Any = (), box: Any = None, **more: Any
    ) -> Any:
        """A box is its two corners with labels of their own, before the points."""
        points, labels = np.reshape(np.asarray(points, np.float32), (-1, 2)), np.asarray(labels, np.int32)
        if box is not None:
            points = np.concatenate((np.asarray(box, np.float32).reshape(2, 2), points))
            labels = np.concatenate((np.array([2, 3], np.int32), labels))
        return self._predictor.add_new_points(state, frame, object_id, points, labels, **more)


def _keep_object_scores(predictor: Any) -> None:
    """Let every output of a frame hold the object's score, which the heads give and EfficientTAM's predictor drops."""
    latest: list[torch.Tensor] = []

    def watched(heads: Any) -> Any:
        def watching(*args: Any, **kwargs: Any) -> Any:
            outputs = heads(*args, **kwargs)
            latest[:] = [outputs[-1]]
            return outputs

        return watching

    for name in ("_forward_sam_heads", "_use_mask_as_output"):
        setattr(predictor, name, watched(getattr(predictor, name)))
    predictor.latest_object_score = lambda: latest[0]


def parts(folder: Path, model: str, image_size: int) -> Arrays:
    """What the network's parts make of the inputs of ``official_parts``."""
    made = Parts(model, image_size)
    predictor = made.official()
    torch.save({"model": predictor.state_dict()}, folder / "weights.pt")
    with torch.inference_mode():
        return {name: tensor.numpy() for name, tensor in made.of_official(predictor).items()}


def transformers(folder: Path, image_size: int) -> Arrays:
    """EdgeTAM as `transformers` builds it, with random weights: saved in the folder "saved", and what its parts make.

    The trunk is timm's, which is here. Not by ``save_pretrained``, which asks the hub for timm's settings.
    """
    made = TransformersParts(image_size)
    model = made.theirs()
    (folder / "saved").mkdir()
    state = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "saved" / "model.safetensors")
    with torch.inference_mode():
        return {name: tensor.numpy() for name, tensor in made.of_theirs(model).items()}


def main() -> None:
    function, folder = sys.argv[1], Path(sys.argv[2])
    arguments = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # the official code prints
        arrays = {"play": play, "parts": parts, "transformers": transformers}[function](folder, **arguments)
    np.savez(folder / "answers.npz", **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
