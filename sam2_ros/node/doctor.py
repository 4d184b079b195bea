"""Why is nothing to be seen? Watches the images that come, and says what is probably wrong. ROS-free.

``sam2_node`` asks once a second and logs the answer; what to ask the middleware for is passed in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from sam2_ros.resources import share_path

REPEAT_WARNING_S = 30.0
LOSS_WINDOW_S = 5.0
LEAST_LOST = 5  # per window; fewer are not worth a word
LOST_SHARE = 0.1
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
    other_transport: str = ""  # raw or compressed: the one we do not listen to, if this topic is published by it


class ImageWatch:
    """Counts the images that came and those that the middleware says it lost on the way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest_s = self._window_start_s = clock()
        self._received = self._lost = 0
        self._window_start = (0, 0)  # received and lost by then
        self._warned_s, self._warned_kind = clock(), ""

    def note_image(self) -> None:
        self._latest_s = self._clock()
        self._received += 1

    def note_lost(self, count: int) -> None:
        """``count`` images that were sent did not make it. (Those that the queue of depth 1 replaces do not count.)"""
        self._lost += count

    @property
    def silent_s(self) -> float:
        """Time since the latest image, or since the watch began."""
        return self._clock() - self._latest_s

    def diagnose(self, timeout_s: float, ask: Callable[[], ImageTopic]) -> str:
        """What is wrong with the images, and what to do; empty when all is well or it was said a moment ago."""
        silent_s = self.silent_s
        lost_share = self._lost_share()
        if silent_s < timeout_s and lost_share < LOST_SHARE:
            return ""
        topic = ask()
        if silent_s >= timeout_s:
            kind, text = f"silence {topic.publishers}", explain_silence(topic, silent_s, self._lost)
        else:
            text = f"{lost_share:.0%} of the images on {topic.name} are lost on the way. {profile_advice()}"
            kind = "losses"
        now_s = self._clock()
        if kind == self._warned_kind and now_s - self._warned_s < REPEAT_WARNING_S:
            return ""
        self._warned_kind, self._warned_s = kind, now_s
        return text

    def _lost_share(self) -> float:
        """Share (0..1) lost in a window that has just ended; 0 in between, and for a few."""
        if self._clock() - self._window_start_s < LOSS_WINDOW_S:
            return 0.0
        received, lost = self._received - self._window_start[0], self._lost - self._window_start[1]
        self._window_start_s, self._window_start = self._clock(), (self._received, self._lost)
        return lost / (received + lost) if lost >= LEAST_LOST else 0.0


def explain_silence(topic: ImageTopic, silent_s: float, lost: int = 0) -> str:
    """Why no image came, as far as the middleware's graph tells."""
    start = f"no image on {topic.name} for {silent_s:.0f} s: "
    if not topic.publishers and topic.other_transport:
        return f"{start}nobody publishes there, but {topic.other_transport} images: set image_transport to that"
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
    happens = f"and {lost} were lost on the way." if lost else "but nothing arrives. Is the camera running?"
    return f"{start}published by {names}, {happens} {profile_advice()}"


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
