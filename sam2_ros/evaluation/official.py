"""The official SAM 2 code (PyPI package ``sam2``, a third party's upload of commit 2b90b9f), to compare ours with.

The package is an extra of tests and benchmarks, which everything here needs.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sam2_ros.evaluation.official_relatives import build_relative, family_of
from sam2_ros.tracking.transforms import image_to_input

NOT_INSTALLED = "the official package is not installed: run `make venv`"
_YAML_SUFFIXES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
_kept_alive: list[object] = []  # an operator exists as long as its library object


def import_official_builder() -> Callable[..., Any] | None:
    """``build_sam2_video_predictor``, or None where the package is not installed.

    The package imports torchvision, whose compiled part is not installed here. For the import to succeed, only the
    names of its operators have to exist; nothing calls them.
    """
    try:
        with contextlib.suppress(RuntimeError):  # already defined
            library = torch.library.Library("torchvision", "DEF")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define(
                "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
                "int sampling_ratio, bool aligned) -> Tensor"
            )
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _kept_alive.append(library)
        from sam2 import sam2_video_predictor
        from sam2.build_sam import build_sam2_video_predictor
    except ImportError:
        return None
    sam2_video_predictor.tqdm = lambda frames, **_: frames  # no bar per frame of a stream
    return build_sam2_video_predictor


def build_official(
    name: str,
    image_size: int,
    postprocess: bool = True,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    compiled: bool = False,
) -> Any:
    """The official video predictor of one of our model names, with its default initialisation.

    Args:
        name: "sam2.1_hiera_tiny", "sam2_hiera_large", ...; "edgetam" or an EfficientTAM in a process of that code, see
            ``official_relatives``.
        image_size: side of the square model input in px.
        postprocess: the builder's default settings, but never with holes filled, which ours does not do: SAM 2's code
            needs an extension for that, EdgeTAM's has OpenCV do it; False: those of the official benchmark.
        overrides: hydra's, such as "++model.num_maskmem=4".
        device: "cpu", "cuda", ...
        compiled: the predictor that compiles all of its parts (``vos_optimized``), for GPUs; EdgeTAM's and
            EfficientTAM's code can compile its image encoder alone.

    Raises:
        ImportError: the package is not installed.
    """
    builder = import_official_builder()
    if builder is None:
        raise ImportError(NOT_INSTALLED)
    if family_of(name) is not None:
        more = ("++model.compile_image_encoder=true",) if compiled else ()
        predictor = build_relative(builder, name, image_size, postprocess, (*overrides, *more), device)
    else:
        family, _, size = name.partition("_hiera_")
        predictor = builder(
            f"configs/{family}/{family}_hiera_{_YAML_SUFFIXES[size]}.yaml",
            device=device,
            hydra_overrides_extra=[f"++model.image_size={image_size}", *overrides],
            apply_postprocessing=postprocess,
            vos_optimized=compiled,
        )
    predictor.fill_hole_area = 0
    return predictor


def randomise(model: nn.Module, seed: int, object_score_bias: float | None) -> None:
    """Give every parameter and buffer a random value of sensible scale.

    The default initialisation hides errors: position embeddings and biases of zero, layer scales of 1e-6.

    Args:
        model: official, or ours.
        seed: the same gives the same weights.
        object_score_bias: bias of the layer that gives the object score. With a large positive one objects are present;
            otherwise a random model finds them absent, and all masks are constant. None if that layer has another name.
    """
    generator = torch.Generator().manual_seed(seed)
    embeddings = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            noise = torch.randn(tensor.shape, generator=generator)
            if not tensor.is_floating_point():  # a batch norm's count of steps
                tensor.fill_(seed)
            elif name.endswith("running_var"):
                tensor.copy_(1 + noise.abs())
            elif ("norm" in name or ".bn." in name) and name.endswith("weight"):
                tensor.copy_(1 + 0.2 * noise)
            elif tensor.ndim >= 2 and name.endswith("weight") and name not in embeddings:
                tensor.copy_(_gain_of(name) * noise / tensor[0].numel() ** 0.5)
            elif name.endswith("bias"):
                tensor.copy_(0.2 * noise)
            else:  # embeddings, tokens, layer scales, the Fourier matrix
                tensor.copy_(0.5 * noise)
        if object_score_bias is not None:
            model.get_parameter("sam_mask_decoder.pred_obj_score_head.layers.2.bias").add_(object_score_bias)


def _gain_of(name: str) -> float:
    """The factor by which a random matrix scales its input."""
    if "_token_to_image" in name or "_image_to_token" in name:
        return 3.0  # a prompt's position decides where attention goes; at 8 rounding errors decide, too
    if "output_hypernetworks_mlps" in name and name.endswith("layers.2.weight"):
        return 4.0  # logits of a few units, as trained models have
    return 0.7  # slightly less than preserves the variance: above, rounding errors grow from frame to frame


def official_state(predictor: Any, frames: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    """An official inference state of these frames, none of them encoded yet.

    The official loader reads JPEG files; its lossy images are replaced by the exact pixels that our tracker gets.

    Args:
        predictor: official.
        frames: (H, W, 3) uint8 RGB, all of one size.
    """
    predictor._get_image_feature = lambda *args, **kwargs: None  # init_state would encode the lossy first frame
    try:
        with tempfile.TemporaryDirectory() as folder:
            for index, frame in enumerate(frames):
                cv2.imwrite(str(Path(folder, f"{index:05d}.jpg")), frame[:, :, ::-1])
            state: dict[str, Any] = predictor.init_state(folder)
    finally:
        del predictor._get_image_feature
    inputs = [image_to_input(frame, predictor.image_size, torch.device("cpu")) for frame in frames]
    state["images"] = torch.cat(inputs).to(state["images"].device)
    return state


class OfficialStream:
    """One official inference state that goes through a list of frames one by one, as a stream does."""

    def __init__(self, predictor: Any, frames: Sequence[NDArray[np.uint8]]) -> None:
        self.predictor, self.state = predictor, official_state(predictor, frames)

    def add_box(self, object_id: str, box_xyxy: Sequence[float]) -> None:
        """Start an object in the first frame, from a box in pixels."""
        if hasattr(self.predictor, "add_new_points_or_box"):
            self.predictor.add_new_points_or_box(self.state, 0, object_id, box=np.asarray(box_xyxy, np.float32))
        else:  # EfficientTAM's is older: a box is its two corners, with labels of their own
            corners, labels = np.asarray(box_xyxy, np.float32).reshape(2, 2), np.array([2, 3], np.int32)
            self.predictor.add_new_points(self.state, 0, object_id, corners, labels)

    def step(self, index: int) -> dict[str, NDArray[np.bool_]]:
        """Track the next frame, whose number is ``index``; returns each object's (H, W) mask."""
        ((_, ids, logits_n1hw),) = self.predictor.propagate_in_video(
            self.state, start_frame_idx=index, max_frame_num_to_track=0
        )
        return dict(zip(ids, (logits_n1hw[:, 0] > 0).cpu().numpy(), strict=True))
