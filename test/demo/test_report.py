"""What the demo counts: typed-out masks, dropped frames, lost frames, latencies."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sam2_ros.demo.report import DemoReport, IouTally, Output, PackedImage, Recording, judge, measure_speed
from sam2_ros.demo.stream import stamp_with_index

MS = 1_000_000
EMPTY = np.zeros((2, 4), np.uint8)


def ids(*rows: str) -> np.ndarray:
    """A typed-out picture of instance ids."""
    return np.array([[int(c) for c in row] for row in rows], np.uint8)


def an_output(stamp_ns: int, labels: np.ndarray = EMPTY, *, latency_ms: float = 5.0) -> Output:
    return Output(stamp_ns, stamp_ns + int(latency_ms * MS), PackedImage.labels(labels), (), 3.0)


@pytest.mark.parametrize(
    ("truth", "shown", "expected"),
    [
        (ids("1100", "0000"), ids("1100", "0000"), 1.0),
        (ids("1100", "0000"), ids("0110", "0000"), 1 / 3),
        (ids("1100", "0000"), ids("0011", "0000"), 0.0),
        (ids("1100", "0000"), EMPTY, 0.0),  # missed
        (EMPTY, ids("1000", "0000"), 0.0),  # seen where nothing is
        (EMPTY, EMPTY, 1.0),  # hidden, and nothing shown
    ],
)
def test_iou_of_one_frame(truth: np.ndarray, shown: np.ndarray, expected: float) -> None:
    tally = IouTally({"mug": 1}, {"mug": 1})
    tally.add(truth, shown)
    assert tally.mean() == pytest.approx(expected)


def test_labels_and_true_ids_are_matched_by_name_not_by_number() -> None:
    tally = IouTally({"mug": 1, "ball": 2}, {"mug": 7, "ball": 5})
    tally.add(ids("1122", "0000"), ids("7755", "0000"))
    assert tally.per_object() == {"mug": 1.0, "ball": 1.0}


def test_a_dropped_frame_counts_with_the_last_published_mask() -> None:
    tally = IouTally({"ball": 1}, {"ball": 1})
    tally.add(ids("1100", "0000"), ids("1100", "0000"))  # 1
    tally.add(ids("0110", "0000"), None)  # the ball went on, the mask did not: 1/3
    tally.add(ids("0011", "0000"), None)  # 0
    tally.add(ids("0011", "0000"), ids("0011", "0000"))  # 1
    assert tally.mean() == pytest.approx((1 + 1 / 3 + 0 + 1) / 4)


def test_frames_dropped_before_the_first_mask_count_as_nothing_shown() -> None:
    tally = IouTally({"ball": 1}, {"ball": 1})
    tally.add(ids("1100", "0000"), None)
    tally.add(ids("1100", "0000"), ids("1100", "0000"))
    assert tally.mean() == pytest.approx(0.5)


def test_mean_is_over_objects_and_there_is_none_without_frames() -> None:
    tally = IouTally({"a": 1, "b": 2}, {"a": 1, "b": 2})
    assert tally.mean() is None
    tally.add(ids("1122", "0000"), ids("1100", "0000"))
    assert tally.mean() == pytest.approx(0.5)


def test_objects_that_do_not_match_are_rejected() -> None:
    with pytest.raises(ValueError, match="same objects"):
        IouTally({"a": 1}, {"b": 1})


def test_a_label_image_of_another_size_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"expected a label image of \(2, 4\), got \(3, 4\)"):
        IouTally({"a": 1}, {"a": 1}).add(EMPTY, np.zeros((3, 4), np.uint8))


def test_judge_counts_dropped_frames_and_frames_lost_on_the_way() -> None:
    # Frames 0..4. 0 and 2 were answered, 1 was seen by the client but dropped by the node, 3 and 4 reached nobody.
    stamps = [stamp_with_index(i * 100 * MS, i) for i in range(5)]
    image = PackedImage.photo(np.zeros((2, 4, 3), np.uint8))
    answer = ids("1100", "0000")
    recording = Recording(
        images=dict.fromkeys(stamps[:3], image),
        outputs={s: an_output(s, answer) for s in (stamps[0], stamps[2])},
        frame_count=5,
    )
    truths = [answer, answer, answer, ids("0110", "0000"), ids("0011", "0000")]
    tally = IouTally({"ball": 1}, {"ball": 1})
    judge(recording, lambda index: truths[index], tally)
    assert tally.mean() == pytest.approx((1 + 1 + 1 + 1 / 3 + 0) / 5)


def test_speed_is_by_receipt_and_latency_by_the_cameras_stamp() -> None:
    outputs = [an_output(i * 100 * MS, latency_ms=latency) for i, latency in enumerate((10, 20, 30))]
    speed = measure_speed(outputs)
    assert speed.fps == pytest.approx(2 / 0.220)
    assert speed.latency_ms_p50 == pytest.approx(20)
    assert speed.latency_ms_p95 == pytest.approx(29)
    assert speed.inference_ms_p50 == pytest.approx(3)


@pytest.mark.parametrize("outputs", [[], [an_output(0)]])
def test_too_few_answers_have_no_rate(outputs: list[Output]) -> None:
    assert measure_speed(outputs).fps == 0


def test_the_report_is_one_line_of_json_with_the_promised_keys() -> None:
    report = DemoReport(
        frames=150,
        objects=5,
        fps=9.987654321,
        latency_ms_p50=80.0,
        latency_ms_p95=90.0,
        dropped=0,
        mean_iou=None,
        overlay="demo_out/overlay.mp4",
        iou={"mug": 0.123456},
        inference_ms_p50=60.0,
        source="tabletop",
        model="nano",
        rate_hz=10.0,
    )
    text = report.as_json()
    assert "\n" not in text
    values = json.loads(text)
    promised = {"frames", "objects", "fps", "latency_ms_p50", "latency_ms_p95", "dropped", "mean_iou", "overlay"}
    assert promised <= set(values)
    assert values["mean_iou"] is None
    assert values["fps"] == 9.9877
    assert values["iou"] == {"mug": 0.1235}
