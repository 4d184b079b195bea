"""The official SAM 2 code (PyPI package ``sam2``, a third party's upload of commit 2b90b9f) as the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray


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
        from sam2.build_sam import build_sam2_video_predictor
    except ImportError:
        return None
    return build_sam2_video_predictor


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


def synthetic_frames(count: int, size_px: int, seed: int) -> list[NDArray[np.uint8]]:
    """(size, size, 3) uint8 frames: a bright disc that crosses a smooth random background."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(40, 200, (1, 3, 8, 8)))
    background = torch.nn.functional.interpolate(coarse, (size_px, size_px), mode="bicubic")[0].permute(1, 2, 0)
    y, x = np.mgrid[:size_px, :size_px]
    frames = []
    for t in range(count):
        centre_x, centre_y = size_px * (0.25 + 0.5 * t / count), size_px * (0.5 + 0.1 * np.sin(t / 3))
        frame = background.numpy().clip(0, 255).astype(np.uint8).copy()
        frame[(x - centre_x) ** 2 + (y - centre_y) ** 2 < (size_px / 7) ** 2] = (250, 200 - 3 * t, 60)
        frames.append(frame)
    return frames


class OfficialRun:
    """One official inference state over frames that are given as arrays."""

    def __init__(self, predictor, frames: list[NDArray[np.uint8]], folder: Path) -> None:
        from PIL import Image

        # The official loader wants JPEG files; its lossy images are replaced by the very pixels that ours sees.
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"{index:05d}.jpg")
        self.predictor = predictor
        self.state = predictor.init_state(str(folder))
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        pixels = torch.stack([torch.from_numpy(frame).permute(2, 0, 1).float() / 255 for frame in frames])
        self.state["images"] = (pixels - mean) / std
        self.state["cached_features"].clear()

    def click(self, frame: int, object_id: int, xy: tuple[float, float]) -> None:
        self.predictor.add_new_points_or_box(self.state, frame, object_id, points=[xy], labels=[1])

    def low_res_logits(self) -> Iterator[NDArray[np.float32]]:
        """(objects, S/4, S/4) of each frame, before they are brought to the video's size."""
        for frame, _, _ in self.predictor.propagate_in_video(self.state):
            outputs = []
            for per_object in self.state["output_dict_per_obj"].values():
                kinds = per_object["cond_frame_outputs"], per_object["non_cond_frame_outputs"]
                outputs.append(next(kind[frame] for kind in kinds if frame in kind)["pred_masks"][0, 0])
            yield torch.stack(outputs).numpy()
