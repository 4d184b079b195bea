"""What the topic monitor says about images that do not come."""

from __future__ import annotations

import pytest

from sam2_ros.node import diagnostics, subscriptions
from sam2_ros.node.diagnostics import ImageTopic, Publisher, explain_silence
from sam2_ros.node.subscriptions import TopicMonitor

CAMERA = Publisher("camera", "best_effort")


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
    for name in diagnostics.PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if is_set:
        monkeypatch.setenv(diagnostics.PROFILE_VARIABLES[0], "profile.xml")
    assert expected in diagnostics.profile_advice()
    assert "FASTRTPS_DEFAULT_PROFILES_FILE=" in diagnostics.profile_advice()


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_watch_warns_about_silence_once_in_a_while() -> None:
    clock = Clock()
    watch = TopicMonitor(clock)

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
    watch.note_image()
    clock.now_s += 4
    assert diagnose() == ""


def test_a_new_finding_is_told_at_once() -> None:
    clock = Clock()
    watch = TopicMonitor(clock)
    clock.now_s += 5
    assert "nobody publishes" in watch.diagnose(5.0, topic)
    clock.now_s += 1
    assert "nothing arrives" in watch.diagnose(5.0, lambda: topic(CAMERA))


@pytest.mark.parametrize(
    ("came", "lost", "warning"),
    [(150, 0, ""), (50, 100, "67% of the images on /image are lost"), (150, 4, ""), (150, 10, "")],
)
def test_the_watch_warns_about_losses(came: int, lost: int, warning: str) -> None:
    clock = Clock()
    watch = TopicMonitor(clock)
    for _ in range(came):
        watch.note_image()
    watch.note_lost(lost)
    assert watch.diagnose(10.0, lambda: topic(CAMERA)) == ""  # not before the window has ended
    clock.now_s += subscriptions.LOSS_WINDOW_S
    text = watch.diagnose(10.0, lambda: topic(CAMERA))
    assert text.startswith(warning) and ("config/fastdds.xml" in text) == bool(warning)
    clock.now_s += subscriptions.LOSS_WINDOW_S
    watch.note_image()
    assert watch.diagnose(10.0, lambda: topic(CAMERA)) == ""  # that was before


RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "advice"),
    [
        ("/cam/compressed", RAW, COMPRESSED, "image_transport to compressed and remap image to /cam: the node adds"),
        ("/cam", RAW, COMPRESSED, "-r /cam/compressed:=/cam"),
        ("/cam/compressedDepth", RAW, COMPRESSED, "It is depth, packed for image_transport: remap image to the colour"),
        ("/cam", COMPRESSED, RAW, "Set image_transport to raw and remap image to /cam"),
        ("/cam", RAW, "foxglove_msgs/msg/CompressedVideo", "It is video, which has to be decoded"),
        ("/cam", RAW, "ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "It is video, which has to be decoded"),
        ("/cam", RAW, "sensor_msgs/msg/PointCloud2", "Remap image to a topic of type sensor_msgs/msg/Image"),
    ],
)
def test_another_type_is_named_with_what_to_do(name: str, ours: str, theirs: str, advice: str) -> None:
    text = explain_silence(ImageTopic(name, "best_effort", (), (), other_types=(("camera", theirs),), type=ours), 6.0)
    assert f"published there is {theirs} by camera, and the node reads {ours}. " in text and advice in text
    assert "Is the camera running" not in text


def test_a_publisher_of_the_right_type_beside_it_counts() -> None:
    mixed = ImageTopic("/cam", "best_effort", (CAMERA,), (), other_types=(("other", COMPRESSED),))
    assert "published by camera (best_effort), but nothing arrives" in explain_silence(mixed, 6.0)
