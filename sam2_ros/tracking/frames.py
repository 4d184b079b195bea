"""One image of the stream, or a part of it, on its way through the network: encoded, or not yet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.model.sam2 import SAM2, ImageFeatures
from sam2_ros.tracking.types import Scene
from sam2_ros.tracking.zoom.window import Window


@dataclass(frozen=True)
class When:
    """What an image is in its stream."""

    stamp_s: float | None = None  # when it was taken; None if unknown
    scene: Scene = Scene.STEADY


@dataclass(frozen=True)
class Frame:
    """One encoded image, or an encoded part of it."""

    index: int
    features: ImageFeatures  # batch 1
    height: int  # of the camera image, px
    width: int
    window: Window | None = None  # the part that is encoded; None: all of it
    image_rgb: NDArray[np.uint8] | None = None  # (H, W, 3), where windows of it may be looked at
    when: When = When()

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def encoded_hw(self) -> tuple[int, int]:
        """Size of the encoded part, px."""
        return self.size_hw if self.window is None else (self.window.height, self.window.width)

    def kept(self, with_image: bool) -> Frame:
        """The frame for the buffer; the caller may reuse the array of its image."""
        return replace(self, image_rgb=self.image_rgb.copy() if with_image and self.image_rgb is not None else None)


@dataclass(frozen=True)
class RawFrame:
    """An image that is not encoded yet: with no object to track in it, encoding waits until a prompt needs it."""

    index: int
    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    when: When = When()

    @property
    def height(self) -> int:
        return self.image_rgb.shape[0]

    @property
    def width(self) -> int:
        return self.image_rgb.shape[1]

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width

    def kept(self) -> RawFrame:
        """The frame for the buffer; the caller may reuse the array of its image."""
        return replace(self, image_rgb=self.image_rgb.copy())


@dataclass(frozen=True)
class InputFrame:
    """An image that is not encoded yet, as the model's input; kept in the buffer where the image would be larger."""

    index: int
    inputs_13ss: Tensor  # float32, on the device
    height: int  # of the camera image, px
    width: int
    when: When = When()

    image_rgb = None  # as in the other kinds of frames: without it there are no windows

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class PrefetchedImage:
    """An image whose features were computed ahead of its ``step``; see ``Tracker.prefetch``."""

    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    features: ImageFeatures | None  # batch 1; None where ``step`` decides what part of the image it encodes
    network: SAM2  # that computed them
    encode_ms: float  # wall time

    def as_frame(self, index: int, when: When) -> Frame | RawFrame:
        raw = RawFrame(index, self.image_rgb, when)
        if self.features is None:
            return raw
        return Frame(index, self.features, raw.height, raw.width, image_rgb=self.image_rgb, when=when)
