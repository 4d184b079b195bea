"""Single images: every object of the crop is in it once, where its colour is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from memory_photos import MemoryPhotos

from sam2_ros.data.clips import images
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.photos import Photo, make_photo
from sam2_ros.data.clips.synthetic import SyntheticClips

SIZE_PX = 64


def photo_of_discs(count: int) -> Photo:
    """Discs in rows of five, each of a grey of its own."""
    image = np.full((160, 200, 3), 20, np.uint8)
    index = np.zeros((160, 200), np.uint16)
    for number in range(count):
        center = (20 + 40 * (number % 5), 20 + 40 * (number // 5))
        cv2.circle(index, center, 15, number + 1, -1)
    image[index > 0] = (60 + 9 * index[index > 0])[:, None]
    return make_photo("discs", image, index)


def images_of(
    monkeypatch: pytest.MonkeyPatch, count: int, max_objects: int = 16, paste_prob: float = 0.0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(image, (N, S, S) masks) of 20 seeds, as the photograph is coloured."""
    monkeypatch.setattr(images, "apply_look", lambda look, t, image, rng: image)
    library = MemoryPhotos([photo_of_discs(count)])
    make = SyntheticClips(library, SIZE_PX, 1, max_objects, ClipConfig(paste_prob=paste_prob))
    clips = [make(seed) for seed in range(20)]
    assert {len(clip.images_thwc) for clip in clips} == {1}
    return [(clip.images_thwc[0], clip.masks_tnhw[0]) for clip in clips]


def test_masks_are_where_their_objects_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for image, masks in images_of(monkeypatch, 20, max_objects=20):
        assert masks.sum(axis=0).max() == 1
        shades = set()
        for mask in masks:
            inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            if inner.any():
                assert (np.abs(image[inner] - np.median(image[inner])) < 9).mean() > 0.9
                shades.add(int(np.median(image[inner])))
        outside = cv2.dilate(masks.any(axis=0).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
        assert len(shades) >= 2
        # What is left over are slivers of objects at the crop's edge.
        assert (image[outside] > 40).mean() < 0.1


def test_sampled_objects_are_at_most_as_many_as_told_and_not_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [len(masks) for _, masks in images_of(monkeypatch, 20, max_objects=4)]
    assert max(counts) == 4
    many = [len(masks) for _, masks in images_of(monkeypatch, 20)]
    assert max(many) > 8


def test_crops_differ_in_size_and_are_mirrored_and_turned() -> None:
    photo = photo_of_discs(20)
    maps = [images._crop(photo, np.random.default_rng(seed), SIZE_PX) for seed in range(60)]
    assert {bool(matrix[0, 0] < 0) for matrix in maps} == {True, False}
    assert np.mean([abs(matrix[0, 1]) > 0.005 for matrix in maps]) > 0.3
    widths = [SIZE_PX / np.hypot(*matrix[:, 0]) / 200 for matrix in maps]
    assert 0.35 < min(widths) < 0.6 and 0.8 < max(widths) <= 1.0
    for matrix in maps:
        corners = np.array([[x, y] for x in (0.0, 199.0) for y in (0.0, 159.0)]) @ matrix[:, :2].T + matrix[:, 2]
        assert corners.min() < 3 and corners.max() > SIZE_PX - 4


def test_cutouts_are_pasted_as_often_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[object] = []
    make = images.draw_body
    monkeypatch.setattr(images, "draw_body", lambda *args: drawn.append(args) or make(*args))
    images_of(monkeypatch, 6, paste_prob=0.0)
    assert not drawn
    images_of(monkeypatch, 6, paste_prob=1.0)
    assert len(drawn) >= 20


def test_a_seed_decides_the_image() -> None:
    library = MemoryPhotos([photo_of_discs(20)])
    make = SyntheticClips(library, SIZE_PX, 1, 16)
    np.testing.assert_array_equal(make(3).images_thwc, make(3).images_thwc)
    np.testing.assert_array_equal(make(3).masks_tnhw, make(3).masks_tnhw)
    assert not np.array_equal(make(3).images_thwc, make(4).images_thwc)
