"""Segmentation of single images: encode once, prompt many times (the official ``SAM2ImagePredictor``).

Unlike in a video there is no memory, the object score never blanks a mask, all candidates are returned, and the decoder
gets no padding tokens when there are no points.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sam2_ros.model.prompt_encoder import EncodedPrompts, PointPrompts
from sam2_ros.model.sam2 import SAM2, ImageFeatures
from sam2_ros.tracking.prompts import Prompt, fit_to_image, make_prompt, to_model_points
from sam2_ros.tracking.transforms import image_to_input, logits_to_image_size, mask_to_input, remove_small_regions
from sam2_ros.tracking.types import PromptError, check_image

LOGIT_LIMIT = 32.0  # logits fed back are clamped to plus or minus this (official code)
_MAX_BATCH = 16  # prompts in one batch, so that peak memory does not grow with their number
_NO_POINTS = Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), None, None)


@dataclass(frozen=True)
class EncodedImage:
    """The features of one image."""

    features: ImageFeatures  # batch 1
    conditioned_1chw: Tensor  # the top level with the no-memory embedding
    height: int  # of the image, px
    width: int


@dataclass(frozen=True)
class DecodedPrompts:
    """Candidate masks of B prompts: N = 3, or 1 without ``multimask``; in the decoder's order."""

    logits_bnhw: Tensor  # (B, N, S/4, S/4) float32
    ious_bn: Tensor  # (B, N) float32, predicted IoU

    @property
    def fed_back_bnhw(self) -> Tensor:
        """The logits as input of a later call."""
        return self.logits_bnhw.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def encode(model: SAM2, image_rgb: NDArray[np.uint8]) -> EncodedImage:
    """(H, W, 3) uint8 RGB -> features. Raises ValueError for any other array."""
    check_image(image_rgb)
    features = model.encode_image(image_to_input(image_rgb, model.config.image_size, model.no_mem_embed.device))
    return EncodedImage(features, model.without_memory(features), *image_rgb.shape[:2])


def decode(
    model: SAM2, image: EncodedImage, prompts: Sequence[Prompt], logits_bhw: Tensor | None, multimask: bool
) -> DecodedPrompts:
    """Decode prompts as one batch.

    Args:
        prompts: validated, all with the same number of tokens.
        logits_bhw: (B, S/4, S/4) earlier logits, or None.
    """
    points = _points(model, image, prompts)
    logits_b1hw = None if logits_bhw is None else logits_bhw[:, None].float()
    encoded = model.sam_prompt_encoder(points, logits_b1hw, len(prompts))
    if points is None:
        encoded = EncodedPrompts(encoded.tokens_bnc[:, :0], encoded.dense_bchw)
    decoded = model.sam_mask_decoder(
        image.conditioned_1chw,
        model.sam_prompt_encoder.dense_position(),
        encoded,
        image.features.stride4_bchw,
        image.features.stride8_bchw,
        multimask,
    )
    return DecodedPrompts(decoded.logits_bmhw.float(), decoded.ious_bm.float())


def _points(model: SAM2, image: EncodedImage, prompts: Sequence[Prompt]) -> PointPrompts | None:
    if not prompts[0].num_tokens:
        return None
    device = model.no_mem_embed.device
    each = [to_model_points(p, image.height, image.width, model.config.image_size, device) for p in prompts]
    return PointPrompts(torch.cat([p.xy_bn2 for p in each]), torch.cat([p.labels_bn for p in each]))


def logits_of_mask(model: SAM2, mask: NDArray[np.bool_]) -> Tensor:
    """(S/4, S/4): the logits that stand for a given mask (H, W)."""
    mask_11hw = mask_to_input(mask, model.config.image_size, model.no_mem_embed.device)
    return model.prepare_mask(mask_11hw)[1][0, 0]


def at_image_size(
    image: EncodedImage, logits_nhw: Tensor, max_hole_area: float = 0.0, max_sprinkle_area: float = 0.0
) -> Tensor:
    """(N, S/4, S/4) logits -> (N, H, W), after ``remove_small_regions``."""
    cleaned = remove_small_regions(logits_nhw, max_hole_area, max_sprinkle_area)
    return logits_to_image_size(cleaned, image.height, image.width)


class NoImageError(RuntimeError):
    """``predict`` was called before ``set_image``."""


@dataclass(frozen=True)
class ImagePrediction:
    """The masks of one prompt: N = 3 candidates (part, middle, whole), or 1 without ``multimask``; unsorted."""

    masks: NDArray[np.bool_]  # (N, H, W) at the image's size
    scores: NDArray[np.float32]  # (N,) the model's own estimate of each mask's IoU
    logits: NDArray[np.float32]  # (N, S/4, S/4) within plus or minus 32; ``logits[i : i + 1]`` can be fed back

    def ordered(self) -> ImagePrediction:
        """The same candidates, best score first."""
        return self[np.argsort(-self.scores, kind="stable")]

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> ImagePrediction:
        return ImagePrediction(self.masks[rows], self.scores[rows], self.logits[rows])

    def __len__(self) -> int:
        return len(self.scores)


class ImagePredictor:
    """Segments prompted objects in one image. Not thread-safe; several predictors may share a network.

    Args:
        model: in eval mode, on the device to use.
        max_hole_area, max_sprinkle_area: fill holes and remove specks of at most this many pixels of the
            low-resolution map (a quarter of the model's input); 0 keeps them. ``logits`` are not affected.
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
        """Encode an image, which later predictions are for.

        Args:
            image_rgb: (H, W, 3) uint8, RGB.

        Raises:
            ValueError: not such an array; the previous image is kept.
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
        """Segment one object.

        Args:
            points: (P, 2) x, y in pixels of the image.
            labels: (P,) 1 = on the object, 0 = not on it.
            box: (4,) x0, y0, x1, y1 in pixels.
            logits: (1, S/4, S/4) one map of an earlier prediction's ``logits``, which the points or the box correct.
            multimask: three candidates, for an ambiguous prompt such as a single point; else one mask.

        Raises:
            PromptError: the prompt is rejected.
            NoImageError: ``set_image`` was not called.
        """
        has_points = any(given is not None and np.size(given) for given in (points, labels, box))
        prompt = _NO_POINTS if logits is not None and not has_points else make_prompt(points, labels, box)
        maps = None if logits is None else np.asarray(logits)
        return self.predict_batch([prompt], maps, multimask)[0]

    @torch.inference_mode()
    def predict_batch(
        self, prompts: Sequence[Prompt], logits: NDArray | None = None, multimask: bool = True
    ) -> tuple[ImagePrediction, ...]:
        """Segment many objects, each as if it had been prompted alone.

        Args:
            prompts: from ``make_prompt``; a mask stands for the logits that the model would have predicted.
            logits: (B, S/4, S/4) earlier logits, one map per prompt, or None.

        Raises:
            PromptError: a prompt that does not fit the image, or logits of the wrong shape.
            NoImageError: ``set_image`` was not called.
        """
        if self._image is None:
            raise NoImageError("no image yet: call set_image(image_rgb) before predict")
        prompts = [fit_to_image(prompt, self._image.height, self._image.width) for prompt in prompts]
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
        """One mask per prompt (N = 1): for a single point, which is ambiguous, the best of three, as in tracking.

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
