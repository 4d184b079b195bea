from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.cutouts import Cutout, cut_out, procedural_cutout
from sam2_ros.data.clips.motion import CameraRange, camera_path, deformation
from sam2_ros.data.clips.photos import PhotoLibrary, make_photo
from sam2_ros.data.clips.scene import NOBODY, Backdrop, Layer, Scene, render
from sam2_ros.data.clips.synthetic import SyntheticClips

SIZE_PX = 64


def write_photo(root: Path, stem: str, seed: int) -> None:
    """A noisy photograph with a disc (value 7), a box (300) and a speck too small to count (9)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (96, 128, 3), dtype=np.uint8)
    index = np.zeros((96, 128), np.uint16)
    cv2.circle(index, (40, 48), 18, 7, -1)
    cv2.rectangle(index, (80, 20), (110, 70), 300, -1)
    index[2, 2] = 9
    image[index == 7] = (250, 40, 40)
    image[index == 300] = (40, 250, 40)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "images" / f"{stem}.jpg"), image[..., ::-1])
    cv2.imwrite(str(root / "masks" / f"{stem}.png"), index)


@pytest.fixture
def library(tmp_path: Path) -> PhotoLibrary:
    for seed, stem in enumerate(["a_1", "a_2", "b_1"]):
        write_photo(tmp_path / "first", stem, seed)
    write_photo(tmp_path / "second", "7", 9)
    return PhotoLibrary.from_folders([tmp_path / "first", tmp_path / "second"])


def flat_backdrop(num_frames: int, masks: tuple[np.ndarray, ...] = ()) -> Backdrop:
    """A grey photograph that fills the frame and does not move."""
    pose = np.array([[1 / SIZE_PX, 0, 0.5 / SIZE_PX], [0, 1 / SIZE_PX, 0.5 / SIZE_PX], [0, 0, 1.0]])
    image = np.full((SIZE_PX, SIZE_PX, 3), 100, np.uint8)
    return Backdrop(image, masks, np.tile(pose, (num_frames, 1, 1)), None, (0.0, 0.0, SIZE_PX, SIZE_PX))


def square_cutout(side_px: int, gray: int) -> Cutout:
    """A square of one colour; the colour continues for two pixels beyond its outline, as cut_out makes it."""
    rgba = np.full((side_px + 4, side_px + 4, 4), gray, np.uint8)
    rgba[..., 3] = 0
    rgba[2:-2, 2:-2, 3] = 255
    return Cutout(rgba)


def at_px(x_px: float, y_px: float) -> np.ndarray:
    """Pose that puts a square_cutout's first pixel on frame pixel (x, y) at its own resolution."""
    return np.array([[1, 0, x_px - 1.5], [0, 1, y_px - 1.5], [0, 0, SIZE_PX]]) / SIZE_PX


def test_clip_has_promised_shapes_and_types(library: PhotoLibrary) -> None:
    make = SyntheticClips(library, SIZE_PX, num_frames=5, max_objects=2)
    for seed in range(12):
        clip = make(seed)
        assert clip.images_thwc.shape == (5, SIZE_PX, SIZE_PX, 3)
        assert clip.images_thwc.dtype == np.uint8
        count = clip.masks_tnhw.shape[1]
        assert 1 <= count <= 2
        assert clip.masks_tnhw.shape == (5, count, SIZE_PX, SIZE_PX)
        assert clip.masks_tnhw.dtype == np.bool_


@pytest.mark.parametrize("moving_photo_prob", [0.0, 1.0])
def test_targets_exclude_each_other_and_visible_ones_come_first(
    library: PhotoLibrary, moving_photo_prob: float
) -> None:
    config = ClipConfig(moving_photo_prob=moving_photo_prob, visible_at_start_prob=1.0)
    make = SyntheticClips(library, SIZE_PX, num_frames=4, config=config)
    for seed in range(20):
        masks = make(seed).masks_tnhw
        assert masks.sum(axis=1).max() <= 1
        visible = masks[0].any(axis=(1, 2))
        assert masks[0, 0].mean() >= 0.003
        assert list(visible) == sorted(visible, reverse=True)
        assert masks.any(axis=(0, 2, 3)).all(), "a target that never shows teaches nothing"


def test_seed_decides_the_clip(library: PhotoLibrary) -> None:
    make = SyntheticClips(library, SIZE_PX, num_frames=3)
    first, other = make(5), make(6)
    again = SyntheticClips(library, SIZE_PX, num_frames=3)(5)
    np.testing.assert_array_equal(first.images_thwc, again.images_thwc)
    np.testing.assert_array_equal(first.masks_tnhw, again.masks_tnhw)
    assert not np.array_equal(first.images_thwc, other.images_thwc)


def test_targets_move(library: PhotoLibrary) -> None:
    make = SyntheticClips(library, SIZE_PX, num_frames=6, config=ClipConfig(motion=0.6, absence_prob=0.0))
    overlaps = []
    for seed in range(40):
        masks = make(seed).masks_tnhw[:, 0]
        if masks[0].any():
            overlaps.append((masks[0] & masks[-1]).sum() / (masks[0] | masks[-1]).sum())
    assert 0.1 < np.mean(overlaps) < 0.7


def test_no_motion_and_no_bending_keeps_the_photograph_still(library: PhotoLibrary) -> None:
    config = ClipConfig(moving_photo_prob=1.0, motion=0.0, deform_prob=0.0, absence_prob=0.0)
    masks = SyntheticClips(library, SIZE_PX, num_frames=3, config=config)(3).masks_tnhw
    # A shaking hand is the only motion left: less than a pixel or two along the outline.
    assert (masks[0] & masks[2]).sum() > 0.8 * (masks[0] | masks[2]).sum()


def test_cutout_held_still_has_its_own_mask() -> None:
    layer = Layer(square_cutout(20, 200), np.stack([at_px(10, 30)] * 2), is_target=True)
    scene = Scene(1.0, flat_backdrop(2), (layer,))
    expected = np.zeros((SIZE_PX, SIZE_PX), bool)
    expected[30:50, 10:30] = True
    for t in range(2):
        frame = render(scene, t, SIZE_PX)
        np.testing.assert_array_equal(frame.owner_hw == 0, expected)
        assert (frame.image_hwc[32:48, 12:28] == 200).all()
        assert (frame.image_hwc[~expected] == 100).all()


def test_occluder_takes_pixels_away_and_is_no_target() -> None:
    target = Layer(square_cutout(20, 200), at_px(10, 30)[None], is_target=True)
    occluder = Layer(square_cutout(10, 20), at_px(5, 30)[None])
    scene = Scene(1.0, flat_backdrop(1), (target, occluder))
    owner = render(scene, 0, SIZE_PX).owner_hw
    assert scene.target_ids == (0,)
    assert (owner == 0).sum() == 20 * 20 - 5 * 10
    assert (owner == 1).sum() == 10 * 10


def test_cutout_out_of_view_has_no_pixels() -> None:
    layer = Layer(square_cutout(20, 200), at_px(200, 30)[None], is_target=True)
    assert (render(Scene(1.0, flat_backdrop(1), (layer,)), 0, SIZE_PX).owner_hw == NOBODY).all()


def test_deformation_moves_mask_and_colour_together() -> None:
    bend = deformation(np.random.default_rng(0), 1, 0.08)
    layer = Layer(square_cutout(30, 200), at_px(15, 15)[None], bend, is_target=True)
    frame = render(Scene(1.0, flat_backdrop(1), (layer,)), 0, SIZE_PX)
    mask = frame.owner_hw == 0
    assert mask.sum() != 30 * 30
    assert (mask != (frame.image_hwc[..., 0] >= 150)).sum() <= 8  # rounding, along the outline


@pytest.mark.parametrize("border", [cv2.BORDER_REFLECT_101, cv2.BORDER_WRAP])
def test_border_repeats_the_photograph_but_not_its_objects(border: int) -> None:
    mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    mask[:, :20] = 255
    shifted = flat_backdrop(1, (mask,))
    pose = shifted.pose_t33.copy()
    pose[:, 0, 2] += 0.5  # half of the frame now lies left of the photograph
    owner = render(Scene(1.0, replace(shifted, pose_t33=pose, border=border), ()), 0, SIZE_PX).owner_hw
    assert (owner[:, : SIZE_PX // 2] == NOBODY).all()
    assert (owner[:, SIZE_PX // 2 : SIZE_PX // 2 + 20] == 0).all()


def test_camera_path_starts_at_the_identity() -> None:
    path = camera_path(np.random.default_rng(1), 8, 1.5, CameraRange())
    np.testing.assert_allclose(path[0], np.eye(3), atol=1e-12)
    assert np.abs(path[-1] - np.eye(3)).max() > 0.01


def test_photo_keeps_usable_instances_only(tmp_path: Path) -> None:
    write_photo(tmp_path, "x_1", 0)
    photo = PhotoLibrary.from_folders([tmp_path]).draw(np.random.default_rng(0))
    assert [item.label for item in photo.instances] == [1, 2]
    assert photo.instances[0].box_xyxy == (80, 20, 111, 71)  # the largest first
    assert not photo.instances[0].touches_edge
    assert set(np.unique(photo.index_hw)) == {0, 1, 2}


def test_cutout_contains_the_object_without_its_surroundings(tmp_path: Path) -> None:
    write_photo(tmp_path, "x_1", 0)
    photo = PhotoLibrary.from_folders([tmp_path]).draw(np.random.default_rng(0))
    cutout = cut_out(photo, photo.instances[0])
    inside = cutout.rgba_hwc[..., 3] >= 128
    assert 0.85 * photo.instances[0].area_px < inside.sum() <= photo.instances[0].area_px
    assert cutout.rgba_hwc[inside][:, 1].min() > 180
    assert not cutout.rgba_hwc[[0, -1], :, 3].any()
    assert not cutout.rgba_hwc[:, [0, -1], 3].any()


def test_procedural_cutouts_are_solid_and_varied() -> None:
    texture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    areas = [procedural_cutout(np.random.default_rng(seed), texture).area_px for seed in range(12)]
    assert min(areas) > 100
    assert len(set(areas)) == 12


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    write_photo(tmp_path, "x_1", 0)
    with pytest.raises(ValueError, match="must be equal"):
        make_photo("x", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint16))
    with pytest.raises(ValueError, match="num_frames >= 1"):
        SyntheticClips(PhotoLibrary.from_folders([tmp_path]), 64, 0)
