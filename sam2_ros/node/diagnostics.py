"""``/diagnostics`` once a second, and what is probably wrong when no images arrive."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import ReliabilityPolicy

from sam2_ros.image_io.compressed import COMPRESSED_SUFFIX
from sam2_ros.resources import share_path
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.session import Session
from sam2_ros.session.stats import TOO_OLD_S, SessionStats, describe_too_old
from sam2_ros.tracking.types import ObjectState

PERCENTILES = (50, 95)
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
IMAGE_TYPES = {"raw": "sensor_msgs/msg/Image", "compressed": "sensor_msgs/msg/CompressedImage"}
RELIABILITY = {ReliabilityPolicy.RELIABLE: "reliable", ReliabilityPolicy.BEST_EFFORT: "best_effort"}


class DiagnosticsReporter:
    """Turns a session's counters into a status; rates are over the time since the previous report.

    ``look`` says what is wrong with the node's neighbours, see ``GraphWatch``.
    """

    def __init__(
        self,
        name: str,
        parameters: Callable[[], NodeParameters],
        look: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._parameters = parameters
        self._look = look
        self._clock = clock
        self._before = (clock(), 0, 0, 0)

    def report(
        self,
        session: Session | None,
        *,
        state: str,
        trouble: str,
        silent: bool,
        depth_trouble: str = "",
        missed: int = 0,
    ) -> DiagnosticStatus:
        """``trouble``: why there is no session, empty otherwise; ``silent``: active, but no images come;
        ``depth_trouble``: why the latest image had no depth, empty when it had or needed none."""
        status = DiagnosticStatus(name=f"{self._name}: tracking", hardware_id=self._name, level=DiagnosticStatus.OK)
        memory_mb = process_memory_mb()
        values: dict[str, str] = {"state": state, "process memory [MiB]": _one_decimal(memory_mb)}
        values["device memory [MiB]"] = _one_decimal(device_memory_mb())
        status.message = state
        if session is None:
            if trouble:
                status.level, status.message = DiagnosticStatus.ERROR, trouble
        else:
            stats = session.stats()
            values["images lost before the node"] = str(missed)
            self._describe(session, stats, status, values, silent, depth_trouble)
            self._compare(status, "masks are old: p95 age [ms]", _percentile(stats.age_ms, 95), "age_ms")
            self._compare(status, "much memory is in use [MiB]", memory_mb, "memory_mb")
        others = self._look()
        if others and status.level == DiagnosticStatus.OK:
            status.level, status.message = DiagnosticStatus.WARN, others
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        return status

    def _compare(self, status: DiagnosticStatus, what: str, value: float | None, parameter: str) -> None:
        """Raise the level to what the thresholds say; never lower it."""
        for level, prefix in ((DiagnosticStatus.ERROR, "error"), (DiagnosticStatus.WARN, "warn")):
            limit = getattr(self._parameters(), f"{prefix}_{parameter}")
            if limit and value is not None and value > limit and status.level < level:
                status.level = level
                status.message = f"{what} {value:.0f}, {prefix}_{parameter} is {limit:g}"

    def _describe(
        self,
        session: Session,
        stats: SessionStats,
        status: DiagnosticStatus,
        values: dict[str, str],
        silent: bool,
        depth_trouble: str,
    ) -> None:
        now_s = self._clock()
        then_s, received, processed, failed = self._before
        self._before = (now_s, stats.received, stats.processed, stats.failed)
        elapsed_s = max(now_s - then_s, 1e-3)
        values["enabled"] = str(session.enabled).lower()
        values["objects"] = str(len(session.view.objects))
        states = Counter(item.tracked.state for item in session.view.objects)
        for object_state in ObjectState:
            values[f"objects {object_state.name}"] = str(states[object_state])
        values["objects behind"] = str(len(session.view.frames_behind))
        values["images in [Hz]"] = f"{max(stats.received - received, 0) / elapsed_s:.1f}"
        values["images out [Hz]"] = f"{max(stats.processed - processed, 0) / elapsed_s:.1f}"
        values["images dropped"] = str(stats.dropped)
        values["images skipped"] = str(stats.skipped)
        values["images failed"] = str(stats.failed)
        values["last error"] = stats.last_error
        values["stamps"] = session.clock_trouble or "as expected"
        values["no depth because"] = depth_trouble
        for name in ("age", "latency", "waiting", "inference", "publishing"):
            for percent in PERCENTILES:
                values[f"{name} p{percent} [ms]"] = _one_decimal(_percentile(getattr(stats, f"{name}_ms"), percent))
        if session.failure:
            status.level, status.message = DiagnosticStatus.ERROR, session.failure
        elif stats.failed > failed:
            status.level, status.message = DiagnosticStatus.WARN, stats.last_error
        elif silent and session.enabled:
            status.level, status.message = DiagnosticStatus.WARN, "no images"
        elif stats.too_old_for_s >= TOO_OLD_S and values["state"] == "active" and session.enabled:
            status.level = DiagnosticStatus.WARN
            status.message = describe_too_old(stats.too_old_s, self._parameters().max_image_age_s)
        elif session.clock_trouble and values["state"] == "active" and session.enabled:
            status.level, status.message = DiagnosticStatus.WARN, session.clock_trouble
        elif depth_trouble and values["state"] == "active" and session.enabled:
            status.level, status.message = DiagnosticStatus.WARN, depth_trouble
        elif not session.enabled:
            status.message = "disabled"


def process_memory_mb() -> float | None:
    """Resident memory in MiB; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError):
        return None


def device_memory_mb() -> float | None:
    """What PyTorch holds of a GPU's memory in MiB; None where it uses none."""
    torch = sys.modules.get("torch")  # imported only once a model is loaded
    if torch is None or not torch.cuda.is_initialized():
        return None
    return sum(float(torch.cuda.memory_reserved(index)) for index in range(torch.cuda.device_count())) / 2**20


def _percentile(samples: np.ndarray, percent: float) -> float | None:
    return float(np.percentile(samples, percent)) if len(samples) else None


def _one_decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


@dataclass(frozen=True)
class Publisher:
    """A publisher on the image topic."""

    node_name: str
    reliability: str  # best_effort, reliable, or what the middleware calls it


@dataclass(frozen=True)
class ImageTopic:
    """The image topic as the middleware sees it."""

    name: str  # resolved
    reliability: str  # of our subscription
    publishers: tuple[Publisher, ...]
    other_image_topics: tuple[str, ...]  # of the right type, published by somebody
    other_transport: str = ""  # raw or compressed: how the topic is published, if the node subscribes to the other
    other_types: tuple[tuple[str, str], ...] = ()  # (node name, type) of publishers here whose type is not ours
    type: str = IMAGE_TYPES["raw"]  # of our subscription


def explain_silence(topic: ImageTopic, silent_s: float, lost: int = 0) -> str:
    """Why no image arrived, as far as the ROS graph shows."""
    start = f"no image on {topic.name} for {silent_s:.0f} s: "
    if not topic.publishers and topic.other_types:
        names = ", ".join(f"{type_name} by {node_name}" for node_name, type_name in topic.other_types)
        advice = convert_type(topic.name, topic.type, topic.other_types[0][1])
        return f"{start}published there is {names}, and the node reads {topic.type}. {advice}"
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


def convert_type(topic: str, ours: str, theirs: str) -> str:
    """What to do about a publisher of another type on the image topic."""
    base, _, last = topic.rpartition("/")
    if last == "compressedDepth":
        return f"It is depth, packed for image_transport: remap image to the colour image, and depth to {base}"
    if theirs == IMAGE_TYPES["compressed"]:
        if last == COMPRESSED_SUFFIX.strip("/"):
            return f"Set image_transport to compressed and remap image to {base}: the node adds {COMPRESSED_SUFFIX}"
        return (
            f"Set image_transport to compressed and remap {topic}{COMPRESSED_SUFFIX}, which the node then reads, to "
            f"{topic}: -r {topic}{COMPRESSED_SUFFIX}:={topic}"
        )
    if theirs == IMAGE_TYPES["raw"]:
        return f"Set image_transport to raw and remap image to {topic}"
    if "Video" in theirs or "Packet" in theirs:
        return f"It is video, which has to be decoded to {ours} first, as image_transport's republish does"
    return f"Remap image to a topic of type {ours}: ros2 topic find {ours}"


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


def image_topic_names(node: LifecycleNode) -> dict[str, str]:
    """The resolved topic of the images, by ``image_transport``."""
    base = node.resolve_topic_name("image")
    return {"raw": base, "compressed": node.resolve_topic_name(f"{base}{COMPRESSED_SUFFIX}")}


def inspect_image_topic(node: LifecycleNode, parameters: NodeParameters) -> ImageTopic:
    """Who publishes on the image topic, and which other image topics exist."""
    transport = parameters.image_transport
    names = image_topic_names(node)
    (other,) = set(names) - {transport}
    found = node.get_publishers_info_by_topic(names[transport])
    publishers = tuple(
        Publisher(info.node_name, RELIABILITY.get(info.qos_profile.reliability, "unknown"))
        for info in found
        if info.topic_type == IMAGE_TYPES[transport]
    )
    others = tuple(
        topic.removesuffix(COMPRESSED_SUFFIX) if transport == "compressed" else topic
        for topic, types in node.get_topic_names_and_types()
        if IMAGE_TYPES[transport] in types and not is_output(topic, node.get_name())
        if node.count_publishers(topic)
    )
    return ImageTopic(
        name=names[transport],
        reliability=parameters.image_reliability,
        publishers=publishers,
        other_image_topics=others,
        other_transport=other if node.count_publishers(names[other]) else "",
        other_types=tuple(
            (info.node_name, info.topic_type) for info in found if info.topic_type != IMAGE_TYPES[transport]
        ),
        type=IMAGE_TYPES[transport],
    )


def is_output(topic: str, node_name: str) -> bool:
    """Whether the topic is an output of this node or of another sam2_node, and so no camera."""
    return any(f"/{name}/" in topic for name in (node_name, "sam2_node"))
