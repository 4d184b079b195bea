"""What "segment everything" looks for and what it keeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GeneratorSettings:
    """What is looked for and what is kept. The defaults are the official ones, made for the large model."""

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.8  # masks need a predicted IoU above this; 0 takes all
    stability_score_thresh: float = 0.95  # at least this; 0 takes all
    stability_score_offset: float = 1.0  # logits: stability is the IoU of the masks at plus and at minus this
    mask_threshold: float = 0.0  # logits above this are the mask
    box_nms_thresh: float = 0.7  # of masks whose boxes have a higher IoU the one with the best predicted IoU is kept
    crop_n_layers: int = 0  # layer n looks again at 4 ** n crops of the image
    crop_nms_thresh: float = 0.7  # as box_nms_thresh, between crops; the smaller crop's mask is kept
    crop_overlap_ratio: float = 512 / 1500  # of the image's shorter side, in layer 1
    crop_n_points_downscale_factor: int = 1  # layer n has points_per_side divided by the n-th power of this
    min_mask_region_area: int = 0  # holes and specks of at most so many pixels of the low-resolution map go
    use_m2m: bool = False  # decode every mask once more with its own logits
    multimask_output: bool = True  # three masks a point instead of one

    def __post_init__(self) -> None:
        counts = {"points_per_side": 1, "points_per_batch": 1, "crop_n_layers": 0, "crop_n_points_downscale_factor": 1}
        for name, least in counts.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected {least} or more, got {getattr(self, name)}")
        smallest = self.points_per_side // self.crop_n_points_downscale_factor**self.crop_n_layers
        if smallest < 1:
            raise ValueError(
                f"no point is left in crop layer {self.crop_n_layers}: lower crop_n_points_downscale_factor "
                f"({self.crop_n_points_downscale_factor}) or raise points_per_side ({self.points_per_side})"
            )


# Chosen by looking at photographs. Its interim weights are unsure of everything: predicted IoUs rarely reach 0.7 and
# outlines shift with the threshold, so that the official thresholds would leave nothing.
_NANO = GeneratorSettings(
    points_per_side=16,
    pred_iou_thresh=0.4,
    stability_score_thresh=0.6,
    stability_score_offset=0.3,
    box_nms_thresh=0.5,
    min_mask_region_area=20,
)


def settings_for(model_name: str) -> GeneratorSettings:
    """The official settings, or those that were found for a model that is not official."""
    return _NANO if model_name == "nano" else GeneratorSettings()
