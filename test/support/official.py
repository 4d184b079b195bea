"""The official SAM 2 code (PyPI package ``sam2``, a third party's upload of commit 2b90b9f) as the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

NOT_INSTALLED = "the official package is not installed: run `make venv`"
_YAML_SUFFIXES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def import_official_builder():
    """``build_sam2_video_predictor``, or None where the package is not installed.

    The package imports torchvision, whose compiled part has no CPU build: its import needs only the operators' names.
    """
    try:
        with contextlib.suppress(RuntimeError):  # already defined
            library = torch.library.Library("torchvision", "DEF")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define(
                "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
                "int sampling_ratio, bool aligned) -> Tensor"
            )
            import_official_builder.library = library  # definitions live as long as the object
        from sam2 import sam2_video_predictor
        from sam2.build_sam import build_sam2_video_predictor
    except ImportError:
        return None
    sam2_video_predictor.tqdm = lambda frames, **_: frames  # it would draw a bar for each frame of a stream
    return build_sam2_video_predictor


def build_official(name: str, image_size: int, postprocess: bool = True, overrides: Sequence[str] = ()):
    """The official video predictor of one of our model names, with its default initialisation, on the CPU.

    Args:
        name: "sam2.1_hiera_tiny", "sam2_hiera_large", ...
        overrides: hydra's, such as "++model.num_maskmem=4".
    """
    family, _, size = name.partition("_hiera_")
    return import_official_builder()(
        f"configs/{family}/{family}_hiera_{_YAML_SUFFIXES[size]}.yaml",
        device="cpu",
        hydra_overrides_extra=[f"++model.image_size={image_size}", *overrides],
        apply_postprocessing=postprocess,
    )


def randomise(model: torch.nn.Module, seed: int, object_score_bias: float) -> None:
    """Give every parameter and buffer a random value of sensible scale.

    The default initialisation hides errors: position embeddings and biases of zero, layer scales of 1e-6.

    Args:
        object_score_bias: added where the object score comes out; large and positive makes objects present, else a
            random model finds them absent and all masks are one constant.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                tensor.copy_(1 + 0.2 * noise)
            elif tensor.ndim >= 2 and name.endswith("weight") and "embed" not in name and "token" not in name:
                fan_in = tensor[0].numel()
                tensor.copy_(
                    0.7 * noise / fan_in**0.5
                )  # a little less than keeps the variance: above that, rounding grows from frame to frame
            elif name.endswith("bias"):
                tensor.copy_(0.2 * noise)
            else:  # embeddings, tokens, layer scales, the Fourier matrix
                tensor.copy_(0.5 * noise)
        model.get_parameter("sam_mask_decoder.pred_obj_score_head.layers.2.bias").add_(object_score_bias)


def synthetic_frames(count: int, size_px: int, seed: int, width_px: int | None = None) -> list[NDArray[np.uint8]]:
    """(size, width or size, 3) uint8 frames: a bright disc that crosses a smooth random background."""
    width_px = width_px or size_px
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(40, 200, (1, 3, 8, 8)))
    background = torch.nn.functional.interpolate(coarse, (size_px, width_px), mode="bicubic")[0].permute(1, 2, 0)
    y, x = np.mgrid[:size_px, :width_px]
    frames = []
    for t in range(count):
        centre_x, centre_y = width_px * (0.25 + 0.5 * t / count), size_px * (0.5 + 0.1 * np.sin(t / 3))
        frame = background.numpy().clip(0, 255).astype(np.uint8).copy()
        frame[(x - centre_x) ** 2 + (y - centre_y) ** 2 < (size_px / 7) ** 2] = (250, 200 - 3 * t, 60)
        frames.append(frame)
    return frames
