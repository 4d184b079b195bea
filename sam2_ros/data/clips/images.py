"""Single images for training: crops of photographs with all their instances, some with objects pasted in."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.bodies import draw_body
from sam2_ros.data.clips.clip import Clip
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.models import ModelLibrary
from sam2_ros.data.clips.motion import scene_to_frame
from sam2_ros.data.clips.photometric import apply_look, random_look
from sam2_ros.data.clips.photos import Photo, PhotoLibrary
from sam2_ros.data.clips.scene import paint
from sam2_ros.data.clips.stage import Stage

_MIN_AREA_SHARE = 0.0012  # of the frame; 80 px of 256 x 256
_MAX_AREA_SHARE = 0.85
_SMALLEST_CROP = 0.45  # of the photograph's sides
_MAX_PASTED = 4


def draw_image(
    library: PhotoLibrary,
    rng: np.random.Generator,
    size_px: int,
    max_objects: int,
    config: ClipConfig,
    models: ModelLibrary | None = None,
) -> Clip | None:
    """A clip of one frame with up to max_objects objects in random order; None if the crop shows none.

    The index map is sampled once, whatever the number of objects.
    """
    stage = Stage.draw(library, rng, size_px, 1, config, models)
    photo = stage.photo(with_instances=True)
    matrix_23 = _crop(photo, rng, size_px)
    image = _image_through(photo.image_hwc, matrix_23, size_px)
    index_hw = cv2.warpAffine(photo.index_hw, matrix_23, (size_px, size_px), flags=cv2.INTER_NEAREST)
    owner_hw = index_hw.astype(np.int16)
    count = len(photo.instances)
    if stage.happens(config.paste_prob):
        to_frame = scene_to_frame(size_px, stage.aspect)
        for number in range(int(rng.integers(1, _MAX_PASTED + 1))):
            body = draw_body(stage, photo, stage.target_share())
            place = rng.uniform(0.1, 0.9, (1, 2)) * (stage.aspect, 1.0)
            paint(body.along(stage, place), count + 1 + number, 0, to_frame, image, owner_hw)
    area = np.bincount(owner_hw.ravel())
    area[0] = 0
    shown = np.flatnonzero((area >= _MIN_AREA_SHARE * size_px**2) & (area <= _MAX_AREA_SHARE * size_px**2))
    if not len(shown):
        return None
    chosen = rng.permutation(shown)[:max_objects].astype(np.int16)
    look = random_look(rng, 1, size_px)
    masks = owner_hw[None, None] == chosen[None, :, None, None]
    return Clip(apply_look(look, 0, image, rng)[None], masks)


def _crop(photo: Photo, rng: np.random.Generator, size_px: int) -> NDArray[np.float64]:
    """(2, 3) photograph px -> frame px: a crop of 0.45 to 1 of the sides, mirrored and turned a little at random."""
    height, width = photo.index_hw.shape
    share = rng.uniform(_SMALLEST_CROP, 1.0)
    stretch = np.exp(rng.normal(0, 0.12))
    crop_w, crop_h = min(1.0, share * stretch) * width, min(1.0, share / stretch) * height
    x0, y0 = rng.uniform(0, width - crop_w), rng.uniform(0, height - crop_h)
    turn = rng.normal(0, 0.12) if rng.random() < 0.5 else 0.0
    cos, sin = np.cos(turn), np.sin(turn)
    # A turned crop has to be smaller to stay inside the photograph; what still lies outside is filled by mirroring.
    to_unit = np.array([[1 / crop_w, 0, -x0 / crop_w - 0.5], [0, 1 / crop_h, -y0 / crop_h - 0.5], [0, 0, 1]])
    grow = 1 + 0.7 * abs(sin)
    turned = np.array([[cos * grow, -sin * grow, 0], [sin * grow, cos * grow, 0], [0, 0, 1]])
    mirror = np.diag([-1.0 if rng.random() < 0.5 else 1.0, 1.0, 1.0])
    to_frame = np.array([[size_px, 0, size_px / 2 - 0.5], [0, size_px, size_px / 2 - 0.5], [0, 0, 1]])
    # Pixel centres are integers, their corners halves.
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return (to_frame @ mirror @ turned @ to_unit @ centre)[:2]


def _image_through(image_hwc: NDArray[np.uint8], matrix_23: NDArray[np.float64], size_px: int) -> NDArray[np.uint8]:
    """The image under the map, without aliasing: shrunk before where the map shrinks it much."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix_23[:, :2]))))
    if scale < 0.75:
        height, width = image_hwc.shape[:2]
        size = (max(1, round(width * scale * 1.2)), max(1, round(height * scale * 1.2)))
        image_hwc = cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA)
        fx, fy = width / size[0], height / size[1]
        smaller = np.array([[fx, 0, 0.5 * fx - 0.5], [0, fy, 0.5 * fy - 0.5], [0, 0, 1]])
        matrix_23 = matrix_23 @ smaller
    return cv2.warpAffine(
        image_hwc, matrix_23, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
