"""The rendered tabletop: reproducible, and true about itself (masks, depth and intrinsics agree)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam2_ros.demo.tabletop.scene import Tabletop

CROSSING_FRAME = 62  # at 15 Hz: the ball is behind the packet


@pytest.fixture(scope="module")
def scene() -> Tabletop:
    return Tabletop(height_px=120, width_px=160)


def test_two_scenes_with_the_same_seed_agree_to_the_last_bit(scene: Tabletop) -> None:
    # Another process must be able to render the truth of what the camera process sent.
    other = Tabletop(height_px=120, width_px=160)
    scene.render(3)  # the order of rendering must not matter
    first, second = scene.render(20), other.render(20)
    assert np.array_equal(first.image_rgb, second.image_rgb)
    assert np.array_equal(first.ids, second.ids)
    assert np.array_equal(first.depth_m, second.depth_m)


def test_frame_has_the_promised_shapes_and_types(scene: Tabletop) -> None:
    frame = scene.render(0)
    assert (frame.image_rgb.shape, frame.image_rgb.dtype) == ((120, 160, 3), np.dtype(np.uint8))
    assert (frame.ids.shape, frame.ids.dtype) == ((120, 160), np.dtype(np.uint8))
    assert (frame.depth_m.shape, frame.depth_m.dtype) == ((120, 160), np.dtype(np.float32))
    assert np.isfinite(frame.depth_m).all()
    assert frame.depth_m.min() > 0.3


def test_every_object_is_large_in_the_first_frame_and_the_picture_is_not_flat(scene: Tabletop) -> None:
    frame = scene.render(0)
    assert len(scene.names) >= 4
    for value, name in enumerate(scene.names, start=1):
        share = float((frame.ids == value).mean())
        assert 0.02 < share < 0.12, f"{name} covers {share:.3f} of the image"
        assert frame.image_rgb[frame.ids == value].std(axis=0).max() > 10, f"{name} has no texture"


def test_ids_alone_equal_the_ids_of_the_full_rendering(scene: Tabletop) -> None:
    assert np.array_equal(scene.render_ids(45), scene.render(45).ids)


def test_noise_and_camera_change_the_picture_from_frame_to_frame(scene: Tabletop) -> None:
    assert not np.array_equal(scene.render(0).image_rgb, scene.render(1).image_rgb)


def test_depth_intrinsics_and_pose_put_the_table_at_height_zero(scene: Tabletop) -> None:
    frame = scene.render(30)
    rows, cols = np.nonzero(frame.ids == 0)
    on_table = rows > 100  # the lower edge of the image shows nothing but the table and flat clutter
    pixels = np.stack([cols[on_table], rows[on_table], np.ones(on_table.sum())])
    depth = frame.depth_m[rows[on_table], cols[on_table]]
    camera_points = np.linalg.inv(scene.camera_matrix) @ pixels * depth
    world = frame.world_from_camera.rotation @ camera_points + frame.world_from_camera.position_m[:, None]
    assert np.median(np.abs(world[2])) < 1e-4
    assert world[2].max() < 0.04


def test_a_point_of_the_ball_reprojects_into_the_balls_mask_of_a_later_frame(scene: Tabletop) -> None:
    # The ball rests at first, so the same world point is on it in both frames, seen from two places.
    before, after = scene.render(0), scene.render(12)
    click = next(c for c in scene.click_points(0) if c.name == "ball")
    depth = before.depth_m[int(click.y_px), int(click.x_px)]
    ray = np.linalg.inv(scene.camera_matrix) @ (click.x_px, click.y_px, 1)
    world = before.world_from_camera.rotation @ (ray * depth) + before.world_from_camera.position_m
    seen = after.world_from_camera.rotation.T @ (world - after.world_from_camera.position_m)
    u, v, _ = scene.camera_matrix @ (seen / seen[2])
    assert after.ids[round(v), round(u)] == scene.names.index("ball") + 1
    assert after.depth_m[round(v), round(u)] == pytest.approx(seen[2], abs=0.01)


def test_the_ball_goes_out_of_sight_behind_the_packet_and_comes_back(scene: Tabletop) -> None:
    ball, packet = scene.names.index("ball") + 1, scene.names.index("packet") + 1
    areas = [int((scene.render_ids(i) == ball).sum()) for i in (0, CROSSING_FRAME, 110)]
    assert areas[1] == 0
    assert min(areas[0], areas[2]) > 200
    x_before, x_after = (float(np.nonzero(scene.render_ids(i) == ball)[1].mean()) for i in (0, 110))
    x_packet = float(np.nonzero(scene.render_ids(CROSSING_FRAME) == packet)[1].mean())
    assert x_before < x_packet < x_after


def test_click_points_lie_well_inside_their_objects(scene: Tabletop) -> None:
    ids = scene.render_ids(0)
    clicks = scene.click_points()
    assert tuple(c.name for c in clicks) == scene.names
    for value, click in enumerate(clicks, start=1):
        disc = cv2.circle(np.zeros_like(ids), (int(click.x_px), int(click.y_px)), 3, 1, -1).astype(bool)
        assert (ids[disc] == value).all(), f"{click} is near the edge of its object"


def test_objects_out_of_sight_get_no_click_point(scene: Tabletop) -> None:
    assert "ball" not in [c.name for c in scene.click_points(CROSSING_FRAME)]


def test_any_size_keeps_the_field_of_view() -> None:
    small, wide = Tabletop(height_px=48, width_px=64), Tabletop(height_px=180, width_px=240)
    assert wide.camera_matrix[0, 0] / 240 == pytest.approx(small.camera_matrix[0, 0] / 64)
    assert wide.render(0).image_rgb.shape == (180, 240, 3)


@pytest.mark.parametrize("bad", [{"height_px": 20}, {"width_px": 0}, {"rate_hz": 0.0}])
def test_impossible_scenes_are_rejected_with_what_came(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a size of at least 48x48"):
        Tabletop(**bad)  # type: ignore[arg-type]
