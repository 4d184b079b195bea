"""Single images: encode once, point as often as one likes (the official ``SAM2ImagePredictor``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.image_heads import (
    DecodedPrompts,
    EncodedImage,
    at_image_size,
    decode,
    encode,
    logits_of_mask,
)
from sam2_ros.tracking.prompts import Prompt, check_fits, make_prompt
from sam2_ros.tracking.types import PromptError

_MAX_BATCH = 16  # prompts at once, so that memory does not grow with their number
_NO_POINTS = Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), None, None)


class NoImageError(RuntimeError):
    """A prediction was asked for before there was an image."""


@dataclass(frozen=True)
class ImagePrediction:
    """The answer to one prompt: N = 3 candidates (part, middle, whole), or 1 without ``multimask``; unsorted."""

    masks: NDArray[np.bool_]  # (N, H, W) at the image's size
    scores: NDArray[np.float32]  # (N,) the model's own estimate of each mask's IoU
    logits: NDArray[np.float32]  # (N, h, w) within plus or minus 32; ``logits[i : i + 1]`` can be fed back

    def ordered(self) -> ImagePrediction:
        """The same, best score first."""
        return self[np.argsort(-self.scores, kind="stable")]

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> ImagePrediction:
        return ImagePrediction(self.masks[rows], self.scores[rows], self.logits[rows])

    def __len__(self) -> int:
        return len(self.scores)


class ImagePredictor:
    """Segments what is pointed at in one image. Not thread-safe; two predictors may share a network.

    Args:
        model: in eval mode, on the device that is to be used.
        max_hole_area, max_sprinkle_area: close holes and drop specks of at most so many pixels of the low-resolution
            map (a quarter of the model's input); 0 leaves them. ``logits`` are never touched.
    """

    def __init__(self, model: SAM2, max_hole_area: float = 0.0, max_sprinkle_area: float = 0.0) -> None:
        self._model = model
        self._max_hole_area = max_hole_area
        self._max_sprinkle_area = max_sprinkle_area
        self._image: EncodedImage | None = None

    @property
    def model(self) -> SAM2:
        return self._model

    @torch.inference_mode()
    def set_image(self, image_rgb: NDArray[np.uint8]) -> None:
        """Encode an image; what follows is about this one.

        Args:
            image_rgb: (H, W, 3) uint8, RGB.

        Raises:
            ValueError: the array is not such an image; the one before stays.
        """
        self._image = encode(self._model, image_rgb)

    def predict(
        self,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        logits: ArrayLike | None = None,
        multimask: bool = True,
    ) -> ImagePrediction:
        """Segment what the prompt points at.

        Args:
            points: (P, 2) x, y in pixels of the image.
            labels: (P,) 1 = on the object, 0 = not on it.
            box: (4,) x0, y0, x1, y1 in pixels.
            logits: (1, h, w) one map of an earlier prediction's ``logits``, to be corrected by the points or box.
            multimask: three candidates for an ambiguous prompt, such as a single click; else one mask.

        Raises:
            PromptError: a bad prompt, with what was expected.
            NoImageError: ``set_image`` comes first.
        """
        has_points = any(given is not None and np.size(given) for given in (points, labels, box))
        prompt = _NO_POINTS if logits is not None and not has_points else make_prompt(points, labels, box)
        maps = None if logits is None else np.asarray(logits)
        return self.predict_batch([prompt], maps, multimask)[0]

    @torch.inference_mode()
    def predict_batch(
        self, prompts: Sequence[Prompt], logits: NDArray | None = None, multimask: bool = True
    ) -> tuple[ImagePrediction, ...]:
        """Answers to many prompts, each as if it had been given alone.

        Args:
            prompts: from ``make_prompt``; a mask stands for the logits that the model would have given for it.
            logits: (B, h, w) earlier logits, one map a prompt, or None.

        Raises:
            PromptError: a prompt that does not fit the image, or logits of the wrong shape.
            NoImageError: ``set_image`` comes first.
        """
        if self._image is None:
            raise NoImageError("no image yet: call set_image(image_rgb) before predict")
        for prompt in prompts:
            check_fits(prompt, self._image.height, self._image.width)
        given = None if logits is None else self._checked_logits(logits, len(prompts))
        groups: dict[tuple[int, bool], list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            groups[prompt.num_tokens, prompt.mask is not None].append(index)
        answers: dict[int, ImagePrediction] = {}
        for group in groups.values():
            for start in range(0, len(group), _MAX_BATCH):
                rows = group[start : start + _MAX_BATCH]
                answers.update(zip(rows, self._predict(rows, prompts, given, multimask), strict=True))
        return tuple(answers[index] for index in range(len(prompts)))

    def predict_best(self, prompts: Sequence[Prompt]) -> tuple[ImagePrediction, ...]:
        """One mask a prompt (N = 1): for a single click, which is ambiguous, the best of three, as when tracking.

        Raises as ``predict_batch``.
        """
        ambiguous = [number for number, prompt in enumerate(prompts) if prompt.num_tokens == 1]
        clear = [number for number, prompt in enumerate(prompts) if prompt.num_tokens != 1]
        answers: dict[int, ImagePrediction] = {}
        for numbers, multimask in ((ambiguous, True), (clear, False)):
            given = self.predict_batch([prompts[number] for number in numbers], multimask=multimask)
            answers.update(zip(numbers, (prediction.ordered()[:1] for prediction in given), strict=True))
        return tuple(answers[number] for number in range(len(prompts)))

    def _predict(
        self, rows: list[int], prompts: Sequence[Prompt], given_bhw: Tensor | None, multimask: bool
    ) -> list[ImagePrediction]:
        assert self._image is not None
        chosen = [prompts[row] for row in rows]
        masks = [logits_of_mask(self._model, prompt.mask) for prompt in chosen if prompt.mask is not None]
        if masks and given_bhw is not None:
            raise PromptError(
                "a mask stands alone: expected either a mask or logits of an earlier prediction, got both"
            )
        logits_bhw = torch.stack(masks) if masks else None if given_bhw is None else given_bhw[rows]
        decoded = decode(self._model, self._image, chosen, logits_bhw, multimask)
        return [self._answer(decoded, row) for row in range(len(rows))]

    def _answer(self, decoded: DecodedPrompts, row: int) -> ImagePrediction:
        assert self._image is not None
        full_nhw = at_image_size(self._image, decoded.logits_bnhw[row], self._max_hole_area, self._max_sprinkle_area)
        return ImagePrediction(
            masks=(full_nhw > 0).cpu().numpy(),
            scores=decoded.ious_bn[row].cpu().numpy(),
            logits=decoded.fed_back_bnhw[row].cpu().numpy(),
        )

    def _checked_logits(self, logits: NDArray, count: int) -> Tensor:
        side = self._model.config.image_size // 4
        if logits.shape != (count, side, side):
            raise PromptError(
                f"logits: expected shape {(count, side, side)}, one map of an earlier prediction's logits a prompt, "
                f"got {logits.shape}"
            )
        try:
            values = logits.astype(np.float32)
        except (TypeError, ValueError) as error:
            raise PromptError(f"logits: expected numbers, got {logits.dtype}") from error
        if not np.isfinite(values).all():
            raise PromptError("logits: expected finite numbers, got NaN or infinity")
        return torch.from_numpy(values).to(self._model.no_mem_embed.device)
