"""A photograph's object comes off its background, leaves no trace there, and moves by itself."""

from __future__ import annotations

import cv2
import numpy as np
from memory_photos import MemoryPhotos

from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.compose import moving_photo_scene
from sam2_ros.data.clips.lifting import without
from sam2_ros.data.clips.photos import Photo, make_photo
from sam2_ros.data.clips.scene import Scene, render

SIZE_PX, FRAMES = 96, 6
STILL = {"motion": 0.0, "deform_prob": 0.0, "parallax_prob": 0.0, "light_prob": 0.0, "blur_prob": 0.0}


def photo() -> Photo:
    """A red bone on grey noise that gets lighter to the right."""
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(60, 90, (120, 160, 1), dtype=np.uint8), 3, axis=2)
    image += np.linspace(0, 80, 160).astype(np.uint8)[None, :, None]
    index = np.zeros((120, 160), np.uint16)
    cv2.circle(index, (80, 40), 16, 1, -1)
    cv2.rectangle(index, (76, 50), (84, 100), 1, -1)
    image[index == 1] = (220, 30, 30)
    return make_photo("bone", image, index)


def scenes(absence: bool = False, **config: float) -> list[Scene]:
    settings = ClipConfig(**config)
    library = MemoryPhotos([photo()])
    return [
        moving_photo_scene(library, np.random.default_rng(seed), SIZE_PX, FRAMES, 1, settings, absence=absence)
        for seed in range(12)
    ]


def shown(scene: Scene, t: int) -> np.ndarray:
    return render(scene, t, SIZE_PX).owner_hw == scene.target_ids[0]


def test_what_is_behind_the_object_is_like_what_is_around_it() -> None:
    whole = photo()
    empty = without(whole, whole.instances[0]).image_hwc.astype(int)
    hole = cv2.dilate((whole.index_hw == 1).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    np.testing.assert_array_equal(empty[~hole], whole.image_hwc[~hole])
    red = empty[hole][:, 0] - empty[hole][:, 1]
    assert np.abs(red).max() < 30
    xs = np.nonzero(hole)[1]
    expected = 75 + 80 * xs / 159
    assert np.abs(empty[hole][:, 1] - expected).mean() < 20
    assert empty[hole][:, 1].std() > 4, "no texture"


def test_lifted_and_put_back_it_is_the_same_picture() -> None:
    lifted, plain = scenes(**STILL, lift_prob=1.0), scenes(**STILL, lift_prob=0.0)
    assert all(scene.layers and not scene.backdrop.masks for scene in lifted)
    assert not any(scene.layers for scene in plain)
    for one, other in zip(lifted, plain, strict=True):
        mine, whole = shown(one, 0), shown(other, 0)
        assert (mine & whole).sum() > 0.85 * (mine | whole).sum()
        difference = np.abs(render(one, 0, SIZE_PX).image_hwc.astype(int) - render(other, 0, SIZE_PX).image_hwc)
        assert difference[mine].mean() < 12


def test_it_moves_while_its_background_stands() -> None:
    moved = []
    for scene in scenes(
        **{**STILL, "motion": 0.6, "zoom_prob": 0.0, "shake_prob": 0.0}, lift_prob=1.0, motion_spread=0.0
    ):
        # Seen from the photograph: the camera's motion is taken out.
        in_photo = [np.linalg.inv(scene.backdrop.pose_t33[t]) @ scene.layers[0].pose_t33[t] for t in (0, FRAMES - 1)]
        middle = [(pose @ [10.0, 10.0, 1.0])[:2] / (pose @ [10.0, 10.0, 1.0])[2] for pose in in_photo]
        moved.append(np.hypot(*(middle[1] - middle[0])))
    assert np.median(moved) > 3


def test_it_leaves_or_vanishes_where_absence_is_the_lesson() -> None:
    gone = [not all(shown(scene, t).any() for t in range(FRAMES)) for scene in scenes(absence=True, **STILL)]
    first = [shown(scene, 0).any() for scene in scenes(absence=True, **STILL)]
    assert np.mean(gone) > 0.8 and all(first)
