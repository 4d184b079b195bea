"""Why is nothing to be seen? Watches the images that come, and says what is probably wrong. ROS-free.

``sam2_node`` asks once a second and logs the answer; what to ask the middleware for is passed in.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sam2_ros.resources import share_path

REPEAT_WARNING_S = 30.0
GAP_WINDOW = 90  # images
LEAST_IMAGES = 20  # below this a share of lost images is a guess
LOST_SHARE = 0.3
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


@dataclass(frozen=True)
class Publisher:
    """Somebody who publishes on the image topic."""

    node_name: str
    reliability: str  # best_effort, reliable, or what the middleware calls it


@dataclass(frozen=True)
class ImageTopic:
    """The image topic as the middleware sees it."""

    name: str  # resolved
    reliability: str  # of our subscription
    publishers: tuple[Publisher, ...]
    other_image_topics: tuple[str, ...]  # of the right type, published by somebody


class ImageWatch:
    """Remembers when images came and with which stamps. Thread-safe enough: appending is atomic, readers copy."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stamps_ns: deque[int] = deque(maxlen=GAP_WINDOW)
        self._latest_s = clock()
        self._warned_s = -REPEAT_WARNING_S
        self.count = 0

    def note_image(self, stamp_ns: int) -> None:
        self._latest_s = self._clock()
        self._stamps_ns.append(stamp_ns)
        self.count += 1

    @property
    def silent_s(self) -> float:
        """Time since the latest image, or since the watch began."""
        return self._clock() - self._latest_s

    def diagnose(self, timeout_s: float, ask: Callable[[], ImageTopic]) -> str:
        """What is wrong with the images, and what to do; empty when all is well or it was said a moment ago."""
        silent = self.silent_s >= timeout_s
        lost = 0.0 if silent else lost_share(tuple(self._stamps_ns))
        if not silent and lost < LOST_SHARE:
            return ""
        now_s = self._clock()
        if now_s - self._warned_s < REPEAT_WARNING_S:
            return ""
        self._warned_s = now_s
        if silent:
            return explain_silence(ask(), self.silent_s)
        return (
            f"about {lost:.0%} of the images on {ask().name} do not arrive (gaps in their stamps). "
            f"{profile_advice()} It can also be a camera that skips, or a machine that is overloaded"
        )


def lost_share(stamps_ns: Sequence[int]) -> float:
    """Estimate from the stamps of the images that came which share (0..1) of those sent did not. 0 when unclear.

    The sender's period is taken to be a short interval among those seen (the 10th percentile).
    """
    intervals_ns = np.diff(np.array(stamps_ns, dtype=np.int64))
    intervals_ns = intervals_ns[intervals_ns > 0]
    if len(intervals_ns) < LEAST_IMAGES:
        return 0.0
    period_ns = float(np.quantile(intervals_ns, 0.1))
    sent = float(intervals_ns.sum()) / period_ns
    return max(0.0, 1.0 - len(intervals_ns) / sent)


def explain_silence(topic: ImageTopic, silent_s: float) -> str:
    """Why no image came, as far as the middleware's graph tells."""
    start = f"no image on {topic.name} for {silent_s:.0f} s: "
    if not topic.publishers:
        others = ", ".join(topic.other_image_topics)
        seen = f"image topics that are published: {others}" if others else "no image topic is published at all"
        example = topic.other_image_topics[0] if topic.other_image_topics else "/camera/image_raw"
        return (
            f"{start}nobody publishes there. {seen}. Remap: --ros-args -r image:={example}, "
            f"or image_topic:={example} with the launch file; check ROS_DOMAIN_ID when the topic is missing here"
        )
    names = ", ".join(f"{publisher.node_name} ({publisher.reliability})" for publisher in topic.publishers)
    if topic.reliability == "reliable" and all(p.reliability == "best_effort" for p in topic.publishers):
        return f"{start}published by {names}, which does not match image_reliability 'reliable': set it to best_effort"
    return f"{start}published by {names}, but nothing arrives. Is the camera running? {profile_advice()}"


def profile_advice() -> str:
    """What to do about Fast DDS losing large messages."""
    try:
        path = str(share_path("config/fastdds.xml"))
    except FileNotFoundError:
        path = "config/fastdds.xml of sam2_ros"
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return (
            f"Fast DDS loses large images with its default settings: this node has a profile set, the camera's "
            f"process needs it too ({PROFILE_VARIABLES[0]}={path}; {PROFILE_VARIABLES[1]} from Kilted on)."
        )
    return (
        f"Fast DDS loses large images with its default settings: set {PROFILE_VARIABLES[0]}={path} "
        f"({PROFILE_VARIABLES[1]} from Kilted on) for this node and for the camera."
    )
