"""What the start-up doctor says about images that do not come."""

from __future__ import annotations

import pytest

from sam2_ros.node import doctor
from sam2_ros.node.doctor import ImageTopic, ImageWatch, Publisher, explain_silence, lost_share

CAMERA = Publisher("camera", "best_effort")
PERIOD_NS = 33_333_333


def topic(*publishers: Publisher, reliability: str = "best_effort", others: tuple[str, ...] = ()) -> ImageTopic:
    return ImageTopic("/image", reliability, publishers, others)


@pytest.mark.parametrize(
    ("image_topic", "expected"),
    [
        (topic(), ["no image on /image for 6 s", "nobody publishes there", "no image topic is published at all"]),
        (topic(others=("/cam/a", "/cam/b")), ["published: /cam/a, /cam/b", "-r image:=/cam/a"]),
        (topic(CAMERA), ["camera (best_effort)", "nothing arrives", "config/fastdds.xml"]),
        (topic(CAMERA, reliability="reliable"), ["does not match image_reliability 'reliable'"]),
        (topic(CAMERA, Publisher("bag", "reliable"), reliability="reliable"), ["nothing arrives"]),
    ],
)
def test_silence_is_explained(image_topic: ImageTopic, expected: list[str]) -> None:
    text = explain_silence(image_topic, 6.0)
    for part in expected:
        assert part in text


@pytest.mark.parametrize(
    ("is_set", "expected"), [(True, "camera's process needs it too"), (False, "and for the camera")]
)
def test_the_profile_is_named_for_whom_it_lacks(monkeypatch: pytest.MonkeyPatch, is_set: bool, expected: str) -> None:
    for name in doctor.PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if is_set:
        monkeypatch.setenv(doctor.PROFILE_VARIABLES[0], "profile.xml")
    assert expected in doctor.profile_advice()
    assert "FASTRTPS_DEFAULT_PROFILES_FILE=" in doctor.profile_advice()


@pytest.mark.parametrize(
    ("frames_that_came", "lost"),
    [
        (range(60), 0.0),
        ([frame for frame in range(90) if frame % 3], 1 / 3),
        ([frame for frame in range(180) if frame % 4 in (0, 1)], 0.5),
        (range(10), 0.0),  # too few to tell
        ([], 0.0),
    ],
)
def test_lost_share_from_gaps_in_the_stamps(frames_that_came: list[int], lost: float) -> None:
    assert lost_share([frame * PERIOD_NS for frame in frames_that_came]) == pytest.approx(lost, abs=0.02)


def test_images_without_stamps_are_no_evidence() -> None:
    assert lost_share([0] * 60) == 0.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_watch_warns_about_silence_once_in_a_while() -> None:
    clock = Clock()
    watch = ImageWatch(clock)

    def diagnose() -> str:
        return watch.diagnose(5.0, lambda: topic(CAMERA))

    clock.now_s += 4
    assert diagnose() == ""
    clock.now_s += 1
    assert "no image on /image for 5 s" in diagnose()
    clock.now_s += 29
    assert diagnose() == ""
    clock.now_s += 1
    assert "for 35 s" in diagnose()
    watch.note_image(0)
    clock.now_s += 4
    assert diagnose() == "" and watch.count == 1


def test_the_watch_warns_about_gaps() -> None:
    clock = Clock()
    watch = ImageWatch(clock)
    for frame in range(120):
        if frame % 2 == 0 or frame % 3 == 0:  # gaps of one and two
            watch.note_image(frame * PERIOD_NS)
    text = watch.diagnose(5.0, lambda: topic(CAMERA))
    assert "about 33% of the images on /image do not arrive" in text and "config/fastdds.xml" in text
