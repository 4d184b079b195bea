"""Depth and calibration for a processed image: what fits, and what is said when nothing does."""

from __future__ import annotations

import logging
import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from image_messages import image_message
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from sam2_ros.perception.depth import DepthSource, choose_target, cloud_of, is_ignored
from sam2_ros.session.objects import ObjectView, TrackingView
from sam2_ros.session.parameters import parse
from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask

SECOND = 1_000_000_000
HEIGHT, WIDTH = 24, 32
FOCAL, DISTANCE_M = 40.0, 2.0
BOX = (8, 6, 20, 18)  # x0, y0, x1, y1


def an_object(
    object_id: str = "mug",
    label: int = 1,
    box: tuple[int, int, int, int] = BOX,
    *,
    class_id: str = "",
    state: ObjectState = ObjectState.TRACKED,
    first_seen_ns: int = 1,
) -> ObjectView:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = state is ObjectState.TRACKED
    seen = state is ObjectState.TRACKED
    tracked = TrackedMask(object_id, label, state, 0.9, 0.9, mask, int(mask.sum()), box if seen else None, None)
    return ObjectView(tracked, class_id, first_seen_ns, first_seen_ns)


def a_view(*objects: ObjectView, stamp_s: float = 1.0, frame: str = "camera") -> TrackingView:
    label_image = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for item in objects:
        label_image[item.tracked.mask] = item.tracked.label
    result = FrameResult(0, tuple(item.tracked for item in objects), label_image, 1.0)
    image = np.full((HEIGHT, WIDTH, 3), 200, dtype=np.uint8)
    return TrackingView(SimpleNamespace(frame_id=frame), round(stamp_s * SECOND), image, result, objects, 0)


def camera_info(width: int = WIDTH, height: int = HEIGHT, focal: float = FOCAL) -> CameraInfo:
    k = [focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0]
    return CameraInfo(width=width, height=height, k=k if focal else [0.0] * 9, roi=RegionOfInterest())


def depth_image(
    values: Any = DISTANCE_M * 1000, encoding: str = "16UC1", shape: tuple[int, int] = (HEIGHT, WIDTH)
) -> Any:
    kind = np.uint16 if encoding == "16UC1" else np.float32
    message = image_message(np.broadcast_to(np.asarray(values, dtype=kind), shape), encoding)
    message.header.frame_id = "camera"
    return message


def a_source(
    depth: Any = None, info: CameraInfo | None = None, depth_stamp_s: float = 1.0, **values: Any
) -> DepthSource:
    source = DepthSource(lambda: parse({"use_depth": True, **values}))
    if depth is not None:
        source.put_depth(round(depth_stamp_s * SECOND), depth)
    if info is not None:
        source.put_camera_info(info)
    return source


def test_an_object_has_its_place_and_size() -> None:
    source = a_source(depth_image(), camera_info())
    scene = source.measure(a_view(an_object()))
    assert source.trouble == "" and scene.depth is not None
    place = scene.geometry["mug"]
    # The box is centred two columns left of the image's middle, half a row below nothing: 13.5 - 15.5 and 11.5 - 11.5.
    assert place.box_center == pytest.approx([-2 / FOCAL * DISTANCE_M, 0, DISTANCE_M], abs=1e-6)
    # 12 px less a border of 1 on both sides: 9 steps between the outer points' centres.
    assert place.size == pytest.approx([9 / FOCAL * DISTANCE_M, 9 / FOCAL * DISTANCE_M, 0], abs=0.02)


@pytest.mark.parametrize(
    ("values", "encoding", "settings"),
    [(DISTANCE_M, "32FC1", {}), (DISTANCE_M * 10000, "16UC1", {"depth_scale": 1e-4})],
)
def test_units_of_depth(values: float, encoding: str, settings: dict[str, float]) -> None:
    scene = a_source(depth_image(values, encoding), camera_info(), **settings).measure(a_view(an_object()))
    assert scene.geometry["mug"].centroid[2] == pytest.approx(DISTANCE_M)


@pytest.mark.parametrize("factor", [2, 0.5])
def test_depth_and_calibration_of_another_size_are_brought_to_the_image(factor: float) -> None:
    size = (int(WIDTH * factor), int(HEIGHT * factor))
    source = a_source(depth_image(shape=(size[1], size[0])), camera_info(*size, focal=FOCAL * factor))
    place = source.measure(a_view(an_object())).geometry["mug"]
    assert place.box_center == pytest.approx([-2 / FOCAL * DISTANCE_M, 0, DISTANCE_M], abs=1e-6)


def test_holes_in_the_depth_are_left_out() -> None:
    depth_m = np.full((HEIGHT, WIDTH), DISTANCE_M, dtype=np.float32)
    depth_m[:, 14:] = math.nan
    depth_m[9, :] = 0.0
    place = a_source(depth_image(depth_m, "32FC1"), camera_info()).measure(a_view(an_object())).geometry["mug"]
    assert place.centroid[2] == pytest.approx(DISTANCE_M)
    assert place.centroid[0] == pytest.approx((11 - 15.5) / FOCAL * DISTANCE_M)  # columns 9 to 13 are left


@pytest.mark.parametrize("nothing", [math.nan, 0.0, -1.0, math.inf])
def test_depth_without_any_measurement_is_no_trouble_and_no_pose(nothing: float) -> None:
    source = a_source(depth_image(nothing, "32FC1"), camera_info())
    scene = source.measure(a_view(an_object()))
    assert scene.depth is not None and not scene.geometry and source.trouble == ""
    assert len(cloud_of(a_view(an_object()), scene.depth, parse({}))) == 0


@pytest.mark.parametrize("state", [ObjectState.PENDING, ObjectState.OCCLUDED, ObjectState.LOST])
def test_only_what_is_seen_has_a_place(state: ObjectState) -> None:
    assert not a_source(depth_image(), camera_info()).measure(a_view(an_object(state=state))).geometry


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (a_source(None, camera_info()), "no depth image came yet: remap depth"),
        (a_source(depth_image(), camera_info(), 1.2), r"within 0.05 s of the image: the nearest is 0.200 s later"),
        (a_source(depth_image(), camera_info(), 0.9), r"the nearest is 0.100 s earlier; synchronise the two"),
        (a_source(depth_image()), "no camera_info came yet: remap camera_info"),
        (a_source(depth_image(), camera_info(focal=0.0)), "the camera is not calibrated"),
        (a_source(depth_image(), camera_info(width=40)), "camera_info is for 40 x 24 px and the image has 32 x 24"),
        (a_source(depth_image(shape=(24, 24)), camera_info()), "the depth image is for 24 x 24 px"),
        (a_source(image_message(np.zeros((2, 2, 3), np.uint8), "rgb8"), camera_info()), "depth encoding 'rgb8' is not"),
        (a_source(image_message(np.zeros((24, 32), np.uint16), "16UC1", cut=9), camera_info()), "data too short"),
    ],
)
def test_what_is_wrong_is_said_once_and_the_masks_go_on(
    source: DepthSource, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="sam2_ros"):
        for stamp_s in (1.0, 1.001):
            scene = source.measure(a_view(an_object(), stamp_s=stamp_s))
            assert scene.depth is None and not scene.geometry
    complaints = [text for text in caplog.messages if text.startswith("no positions, sizes and points: ")]
    assert len(complaints) == 1
    assert re.search(reason, complaints[0])
    assert source.trouble


def test_complaints_of_ever_other_numbers_and_names_are_not_all_remembered(caplog: pytest.LogCaptureFixture) -> None:
    source = a_source(info=camera_info())
    for number in range(300):
        message = image_message(np.zeros((24, 32), np.uint16), "16UC1", cut=2 * number + 2)
        message.header.frame_id = f"frame{chr(97 + number % 26)}{chr(97 + number // 26)}"
        source.put_depth(SECOND, message)
        source.measure(a_view(an_object()))
    assert len([text for text in caplog.messages if "data too short" in text]) == 1
    assert len(source._told) <= 64


@pytest.mark.parametrize(("slop_s", "is_near"), [(0.09, False), (0.11, True)])
def test_how_far_stamps_may_be_apart_is_for_the_parameter_to_say(slop_s: float, is_near: bool) -> None:
    source = a_source(depth_image(), camera_info(), depth_stamp_s=1.1, depth_slop_s=slop_s)
    assert bool(source.measure(a_view(an_object())).geometry) is is_near


def test_trouble_ends_with_its_cause() -> None:
    source = a_source(depth_image())
    source.measure(a_view(an_object()))
    assert "no camera_info" in source.trouble
    source.put_camera_info(camera_info())
    assert source.measure(a_view(an_object())).geometry and source.trouble == ""


def test_nobody_misses_depth_while_nothing_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    source = a_source()
    with caplog.at_level(logging.WARNING, logger="sam2_ros"):
        source.measure(a_view(an_object(state=ObjectState.OCCLUDED)))
    assert not caplog.messages and "no depth image came yet" in source.trouble


@pytest.mark.parametrize(("waiting_s", "found"), [((), False), ((0.0,), True), ((0.0, 0.3), True)])
def test_images_that_wait_find_their_depth_however_long_the_model_takes(
    waiting_s: tuple[float, ...], found: bool
) -> None:
    waiting_ns = [round(stamp_s * SECOND) for stamp_s in waiting_s]
    source = DepthSource(lambda: parse({"use_depth": True}), lambda: waiting_ns)
    source.put_camera_info(camera_info())
    for number in range(60):
        source.put_depth(number * SECOND // 10, depth_image())
    for stamp_s in waiting_s or (0.0,):
        assert (source.measure(a_view(an_object(), stamp_s=stamp_s)).depth is not None) is found


def test_positions_in_rectified_images_are_by_the_rectified_calibration() -> None:
    info = camera_info()
    info.p = [FOCAL / 2, 0.0, (WIDTH - 1) / 2, 0.0, 0.0, FOCAL / 2, (HEIGHT - 1) / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    raw, rectified = (
        a_source(depth_image(), info, rectified=rectified).measure(a_view(an_object())).geometry["mug"].centroid
        for rectified in (False, True)
    )
    assert np.allclose(rectified[:2], 2 * np.array(raw[:2])) and rectified[2] == raw[2] and raw[0] != 0


def test_each_image_takes_the_nearest_depth() -> None:
    source = a_source(None, camera_info())
    for stamp_s, metres in ((1.0, 1.0), (1.033, 2.0), (1.066, 3.0)):
        source.put_depth(round(stamp_s * SECOND), depth_image(metres, "32FC1"))
    for stamp_s, metres in ((1.04, 2.0), (1.06, 3.0), (0.98, 1.0)):
        place = source.measure(a_view(an_object(), stamp_s=stamp_s)).geometry["mug"]
        assert place.centroid[2] == pytest.approx(metres)


def test_depth_of_a_bags_last_round_is_forgotten() -> None:
    now_s = 0.0
    source = DepthSource(lambda: parse({"use_depth": True}), clock=lambda: now_s)
    source.put_camera_info(camera_info())
    for stamp_s in (9.0, 1.0, 1.1):  # it starts again
        source.put_depth(round(stamp_s * SECOND), depth_image())
        now_s += 1.0
    assert source.measure(a_view(an_object(), stamp_s=9.0)).depth is None
    assert source.measure(a_view(an_object(), stamp_s=1.0)).depth is not None


def stream(source: DepthSource, clock: list[float], depth_late_s: float, colour_early_s: float, speed: float) -> None:
    """Forty images at 10 Hz, each with its depth, stamped as told, played at another speed."""
    for index in range(40):
        taken_s = 100 + index / 10
        clock[0] = index / 10 / speed
        source.note_image(round((taken_s - colour_early_s) * SECOND))
        clock[0] += 0.01  # depth takes a little longer
        source.put_depth(round((taken_s + depth_late_s) * SECOND), depth_image())


@pytest.mark.parametrize(
    ("depth_late_s", "colour_early_s", "said"),
    [
        (0.7, 0.0, "stamped 0.69 s later"),
        (-0.3, 0.0, "stamped 0.31 s earlier"),
        (0.0, 3.0, "stamped 2.99 s later"),
    ],
)
def test_depth_with_wrong_stamps_gives_no_pose_and_its_offset_is_told(
    depth_late_s: float, colour_early_s: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    source = DepthSource(lambda: parse({"use_depth": True}), clock=lambda: clock[0])
    source.put_camera_info(camera_info())
    stream(source, clock, depth_late_s, colour_early_s, speed=1.0)
    for stamp_s in (103.9 + depth_late_s, 103.9 - colour_early_s):  # one has depth of that very stamp
        assert not source.measure(a_view(an_object(), stamp_s=stamp_s)).geometry
        assert said in source.trouble and said in caplog.text
    assert len(caplog.records) == 1 and "raise" not in source.trouble


@pytest.mark.parametrize("speed", [0.2, 1.0, 5.0])
def test_stamps_that_are_right_give_poses_at_any_speed_of_replay(speed: float) -> None:
    clock = [0.0]
    source = DepthSource(lambda: parse({"use_depth": True}), clock=lambda: clock[0])
    source.put_camera_info(camera_info())
    stream(source, clock, 0.0, 0.0, speed)
    assert source.measure(a_view(an_object(), stamp_s=103.9)).geometry and source.trouble == ""


@pytest.mark.parametrize(
    ("metres", "encoding", "said"),
    [(1500.0, "32FC1", "depth of 1500 m"), (0.005, "32FC1", "0.005 m"), (5.0, "16UC1", "16UC1 is in millimetres")],
)
def test_depth_in_another_unit_is_said_and_gives_no_pose(metres: float, encoding: str, said: str) -> None:
    source = a_source(depth_image(metres, encoding), camera_info())
    assert not source.measure(a_view(an_object())).geometry
    assert "is in another unit" in source.trouble and said in source.trouble


def test_a_single_depth_image_of_another_time_takes_nothing_away() -> None:
    source = a_source(depth_image(), camera_info(), depth_stamp_s=9.0)
    source.put_depth(1 * SECOND, depth_image())
    assert source.measure(a_view(an_object(), stamp_s=9.0)).depth is not None


def test_depth_from_before_a_reset_is_forgotten_and_the_calibration_kept() -> None:
    source = a_source(depth_image(), camera_info())
    source.forget()
    assert source.measure(a_view(an_object())).depth is None
    assert "no depth image came yet" in source.trouble
    source.put_depth(SECOND, depth_image())
    assert source.measure(a_view(an_object())).geometry and source.trouble == ""


def test_depth_of_another_frame_is_used_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    source = a_source(depth_image(), camera_info())
    with caplog.at_level(logging.WARNING, logger="sam2_ros"):
        for _ in range(2):
            assert source.measure(a_view(an_object(), frame="colour")).geometry
    (warning,) = caplog.messages
    assert "depth is in frame 'camera' and the image in 'colour'" in warning


@pytest.mark.parametrize(
    ("classes", "class_id", "ignored"),
    [("ignore", "ignore", True), ("ignore", "cup", False), ("arm, hand", "hand", True), ("", "", False)],
)
def test_ignored_classes(classes: str, class_id: str, ignored: bool) -> None:
    assert is_ignored(an_object(class_id=class_id), parse({"ignore_classes": classes})) is ignored


def test_the_target_is_the_selected_object_else_the_one_first_seen() -> None:
    objects = (
        an_object("arm", 1, class_id="ignore", first_seen_ns=1),
        an_object("gone", 2, state=ObjectState.LOST, first_seen_ns=2),
        an_object("young", 3, first_seen_ns=9),
        an_object("old", 4, first_seen_ns=3),
    )
    assert choose_target(objects, parse({})) == "old"
    for selected in ("young", "gone", "arm", "unknown"):  # never another one than what was selected
        assert choose_target(objects, parse({"selected_object": selected})) == selected
    assert choose_target(objects[:2], parse({})) == ""


def test_clouds_have_no_point_of_what_is_ignored_nor_near_it() -> None:
    arm, mug = an_object("arm", 1, (0, 0, 12, 24), class_id="ignore"), an_object("mug", 2, (12, 0, 32, 24))
    view = a_view(arm, mug)
    scene = a_source(depth_image(), camera_info()).measure(view)
    assert scene.depth is not None

    def columns(margin_px: int) -> set[int]:
        cloud = cloud_of(view, scene.depth, parse({"keep_out_margin_px": margin_px}))
        assert set(cloud["label"]) == {2}
        return set(np.round(cloud["x"] / DISTANCE_M * FOCAL + (WIDTH - 1) / 2).astype(int).tolist())

    assert columns(0) == set(range(13, 32))  # without the border of one
    assert columns(5) == set(range(17, 32))


def test_a_pair_counts_before_the_nearest_depth_and_the_newest_calibration() -> None:
    source = a_source(depth_image(), camera_info(focal=2 * FOCAL))
    source.put_pair(SECOND, SECOND, depth_image(3 * DISTANCE_M * 1000), camera_info())
    place = source.measure(a_view(an_object())).geometry["mug"]
    assert place.box_center == pytest.approx([-2 / FOCAL * 3 * DISTANCE_M, 0, 3 * DISTANCE_M], abs=1e-6)
    source.forget()
    source.put_depth(SECOND, depth_image())
    place = source.measure(a_view(an_object())).geometry["mug"]
    assert place.box_center == pytest.approx([-1 / FOCAL * DISTANCE_M, 0, DISTANCE_M], abs=1e-6)


def test_a_depth_image_that_is_nearer_than_the_paired_one_counts() -> None:
    source = a_source(depth_image(), camera_info(focal=2 * FOCAL))
    source.put_pair(SECOND, SECOND + 33_000_000, depth_image(3 * DISTANCE_M * 1000), camera_info())
    place = source.measure(a_view(an_object())).geometry["mug"]
    assert place.box_center[2] == pytest.approx(DISTANCE_M, abs=1e-6)
    assert place.box_center[0] == pytest.approx(-2 / FOCAL * DISTANCE_M, abs=1e-6), "with the calibration of the pair"
