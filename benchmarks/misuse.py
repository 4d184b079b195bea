"""What ``soak.py --misuse`` does to the node beside a client that tracks: hostile requests and messages at random.

Nothing is waited for: requests are under way while images are shown, and each must be answered in time. The list is of
what users, drivers and other nodes have sent to such nodes: values that make no sense, files that are none, requests
that are larger than they look, images that are damaged or from another time.
"""

from __future__ import annotations

import array
import math
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PointStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_rig import NODE, BenchmarkError, NodeClient
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from soak_stats import Verdict
from std_msgs.msg import Header

from sam2_ros.msg import Prompt
from sam2_ros.node.conversions import ns_to_stamp
from sam2_ros.srv import (
    AddObjects,
    ListObjects,
    LoadSession,
    RefineObject,
    RemoveObjects,
    SaveSession,
    SegmentImage,
)

ANSWER_WITHIN_S = 30.0  # the node's own limit is 5 s
RATIO = 3.0  # largest p99 of the latency, in p50s
HOUR_NS = 3600 * 10**9
SUBNORMAL = 5e-324  # what an integer in a message of floats may arrive as
ODD_NUMBERS = (math.nan, math.inf, -math.inf, -1.0, 1e9, 1e300, SUBNORMAL)
ODD_TEXTS = ("", "/", "a b\n", "x" * 5000, "\u202e", "object_-1", "ignore")


# Messages -------------------------------------------------------------------------------------------------------------


def odd_prompt(rng: random.Random, known_id: str) -> Prompt:
    """A prompt that the node must reject, or one that is odd and allowed."""
    good = Point(x=10.0, y=10.0)
    choices: list[Callable[[], Prompt]] = [
        lambda: Prompt(object_id=known_id, points=[good], point_labels=[1]),  # exists already
        lambda: Prompt(object_id="bad", action=rng.choice((1, 2, 3)), points=[good], point_labels=[1]),  # unknown
        lambda: Prompt(object_id=known_id, action=rng.choice((4, 77, 255)), points=[good], point_labels=[1]),
        lambda: Prompt(object_id=known_id, action=1),  # empty
        lambda: Prompt(
            object_id=known_id, action=1, points=[Point(x=rng.choice(ODD_NUMBERS), y=5.0)], point_labels=[1]
        ),
        lambda: Prompt(object_id=known_id, action=1, points=[good], point_labels=[rng.choice((-1, 2, 2**31 - 1))]),
        lambda: Prompt(object_id=known_id, action=1, points=[good] * 3, point_labels=[1]),
        lambda: Prompt(object_id=known_id, action=1, points=[good] * 300, point_labels=[1] * 300),
        lambda: Prompt(object_id=known_id, action=1, points=[Point(x=7.0, y=7.0)], point_labels=[1], normalized=True),
        lambda: Prompt(object_id=known_id, action=1, box_xyxy=[5.0, 5.0, rng.choice((5.0, 4.0, math.nan)), 9.0]),
        lambda: Prompt(object_id=known_id, action=1, box_xyxy=[-50.0, -50.0, -9.0, -9.0]),
        lambda: Prompt(
            object_id=known_id, action=2, mask=Image(width=3, height=3, step=3, encoding="mono8", data=[1] * 9)
        ),
        lambda: Prompt(object_id=known_id, action=2, mask=Image(width=9, height=9, step=1, encoding="mono8")),
        lambda: Prompt(
            object_id=known_id, action=2, mask=Image(width=2**31, height=2**31, step=2**31, encoding="8UC1")
        ),
        lambda: Prompt(object_id=known_id, action=1, points=[good], point_labels=[1], header=Header(stamp=Time(sec=1))),
        lambda: Prompt(object_id=rng.choice(ODD_TEXTS), box_xyxy=[-5.0, 3.0, 9999.0, 30.0]),  # clipped, and allowed
        lambda: Prompt(points=[good], point_labels=[0]),  # of no object
    ]
    return rng.choice(choices)()


def odd_image(rng: random.Random, size_hw: tuple[int, int], now_ns: int) -> Image:
    """A raw image that cannot be read, or one that is out of place."""
    height, width = size_hw
    image = Image(height=height, width=width, step=3 * width, encoding="rgb8")
    image.header = Header(stamp=ns_to_stamp(now_ns), frame_id="camera")
    noise = bytes(rng.randbytes(3 * width)) * height

    def change(name: str, value: Any) -> None:
        setattr(image, name, value)

    what = rng.choice(("encoding", "width", "step", "short", "zero", "huge", "hour", "small", "no stamp"))
    if what == "encoding":
        change("encoding", rng.choice(("", "h264", "64FC1", "rgb888", "x" * 500)))
    elif what in ("width", "huge"):
        change("width", 2**31 if what == "huge" else width + 7)
    elif what == "step":
        change("step", rng.choice((0, 1, 2**32 - 1)))
    elif what == "short":
        noise = noise[: rng.randrange(len(noise))]
    elif what == "zero":
        change("height", 0)
    elif what == "hour":
        change("header", Header(stamp=ns_to_stamp(now_ns + HOUR_NS), frame_id="camera"))
    elif what == "small":
        image.height, image.width, image.step, noise = 24, 32, 96, noise[: 24 * 96]
    else:
        change("header", Header())
    image.data = array.array("B", noise)
    return image


def odd_segment_request(rng: random.Random) -> dict[str, Any]:
    """Fields of a ``SegmentImage`` request: hopeless, or a lot of work."""
    click = Prompt(points=[Point(x=5.0, y=5.0)], point_labels=[1])
    noise = Image(height=48, width=64, step=192, encoding="rgb8")
    noise.data = array.array("B", rng.randbytes(192 * 48))
    return rng.choice(
        (
            {},
            {"everything": True, "prompts": [click]},
            {"everything": True, "image": noise},
            {"prompts": [click] * rng.choice((40, 257)), "image": noise, "multimask": True},
            {"prompts": [click], "image": Image(height=2**31, width=2**31, step=2**31, encoding="rgb8", data=[1])},
            {"prompts": [click], "image": Image(height=9, width=9, step=27, encoding="of_mars", data=[0] * 243)},
            {"prompts": [click], "image": noise, "timeout_s": rng.choice((math.nan, -1.0, 1e9))},
            {"prompts": [odd_prompt(rng, "none")], "image": noise},
        )
    )


# Who does it ----------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What came of it."""

    asked: Counter[str] = field(default_factory=Counter)  # by what was done
    unanswered: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # objects that were not as they should be
    latencies_ms: list[float] = field(default_factory=list)  # of the client's own images


class Misuser:
    """Does something hostile at a time, and looks after the objects that this starts.

    Args:
        client: the node, as its honest user has it.
        size_hw: of the camera images.
        seed: of what is done; a seed is a sequence.
        folder: for files that are no sessions; exists.
    """

    def __init__(self, client: NodeClient, size_hw: tuple[int, int], seed: int, folder: Path) -> None:
        self.report = Report()
        self._client = client
        self._size_hw = size_hw
        self._rng = random.Random(seed)
        self._folder = folder
        self._pending: deque[tuple[str, float, Any]] = deque()  # what, when it must be answered, the future
        reliable = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
        kinds = {"image": Image, "prompt": Prompt, "click": Point, "clicked_point": PointStamped}
        kinds |= {"depth": Image, "camera_info": CameraInfo}
        node = client.node
        self._topics = {name: node.create_publisher(kind, f"/{name}", reliable) for name, kind in kinds.items()}
        (folder / "not_a_session.pt").write_bytes(b"PK\3\4" + bytes(1000))
        os.mkfifo(folder / "fifo")
        (folder / "loop").symlink_to(folder / "loop")
        self._actions: tuple[Callable[[str], None], ...] = (
            self._prompts, self._refine, self._remove, self._segment, self._segment, self._save, self._load,
            self._list, self._parameters, self._transition, self._image, self._image, self._topic_prompt, self._point,
            self._depth,
        )  # fmt: skip

    def act(self, known_id: str) -> None:
        """Do the next thing. ``known_id``: an object of the honest user."""
        self._rng.choice(self._actions)(known_id)
        self._reap()

    def tidy(self, labels: Mapping[str, int], own: Mapping[str, int]) -> None:
        """After an image: note which of the honest user's objects are not as they were, remove those of others."""
        for object_id, label in own.items():
            if labels.get(object_id) != label:
                self.report.lost.append(f"{object_id} had label {label} and has {labels.get(object_id)}")
        for object_id in labels.keys() - own.keys():
            self._ask("remove what was started", RemoveObjects, "remove_objects", object_ids=[object_id])

    def finish(self) -> None:
        """Wait for all answers; whatever comes late is in the report."""
        while self._pending:
            what, due_s, answer = self._pending.popleft()
            try:
                self._client.spin_until(answer.done, max(due_s - time.monotonic(), 0.01), f"an answer to {what}")
            except BenchmarkError:
                self.report.unanswered.append(what)

    def _reap(self) -> None:
        now_s = time.monotonic()
        late = [what for what, due_s, answer in self._pending if not answer.done() and now_s > due_s]
        self.report.unanswered += late
        self._pending = deque(each for each in self._pending if not each[2].done() and now_s <= each[1])

    def _ask(self, what: str, kind: Any, name: str, **fields: Any) -> None:
        self.report.asked[what] += 1
        answer = self._client.start(kind, f"{NODE}/{name}", **fields)
        self._pending.append((what, time.monotonic() + ANSWER_WITHIN_S, answer))

    def _send(self, topic: str, message: Any) -> None:
        self.report.asked[f"/{topic}"] += 1
        self._topics[topic].publish(message)

    # Requests

    def _prompts(self, known_id: str) -> None:
        rng = self._rng
        prompts = [odd_prompt(rng, known_id) for _ in range(rng.choice((0, 1, 3, 300)))]
        wait = rng.random() < 0.5
        timeout_s = rng.choice((0.0, 0.001, 0.5, math.nan, -1.0))
        self._ask("add_objects", AddObjects, "add_objects", prompts=prompts, wait=wait, timeout_s=timeout_s)

    def _refine(self, known_id: str) -> None:
        prompt = odd_prompt(self._rng, known_id)
        if prompt.object_id == known_id and prompt.action == Prompt.ADD:
            prompt.object_id = "bad"
        self._ask("refine_object", RefineObject, "refine_object", prompt=prompt)

    def _remove(self, known_id: str) -> None:
        ids = self._rng.choice(([], ["nobody"], [known_id, "nobody"], list(ODD_TEXTS), ["nobody"] * 5000))
        self._ask("remove_objects", RemoveObjects, "remove_objects", object_ids=ids)

    def _segment(self, _: str) -> None:
        self._ask("segment_image", SegmentImage, "segment_image", **odd_segment_request(self._rng))

    def _save(self, _: str) -> None:
        names = (
            "/dev/null",
            "/dev/full",
            "/proc/self/mem",
            "fifo",
            "loop",
            "no/such/s.pt",
            "n" * 400,
            "~nobody_/s",
            ".",
        )
        self._file("save_session", SaveSession, names, overwrite=self._rng.random() < 0.5)

    def _load(self, _: str) -> None:
        names = ("", "/dev/zero", "/proc/kmsg", "fifo", "loop", "not_a_session.pt", "none.pt", "n" * 5000, ".")
        self._file("load_session", LoadSession, names)

    def _file(self, name: str, kind: Any, names: tuple[str, ...], **fields: Any) -> None:
        chosen = self._rng.choice(names)
        path = chosen if not chosen or chosen[0] in "/~" else str(self._folder / chosen)
        self._ask(name, kind, name, path=path, **fields)

    def _list(self, _: str) -> None:
        for _each in range(self._rng.choice((1, 20))):
            self._ask("list_objects", ListObjects, "list_objects", with_masks=True)

    def _parameters(self, _: str) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=self._rng.choice(ODD_NUMBERS))
        name = self._rng.choice(("service_timeout_s", "max_rate_hz", "no_such", "model", "depth_slop_s"))
        if name in ("max_rate_hz", "depth_slop_s"):
            value.double_value = math.nan  # others are allowed, and would change what is measured
        self._ask("set_parameters", SetParameters, "set_parameters", parameters=[Parameter(name=name, value=value)])

    def _transition(self, _: str) -> None:
        """One that an active node does not have."""
        bad = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_CLEANUP, 200)
        transition = Transition(id=self._rng.choice(bad))
        self._ask("change_state", ChangeState, "change_state", transition=transition)

    # Topics

    def _image(self, _: str) -> None:
        self._send("image", odd_image(self._rng, self._size_hw, self._client.now_ns()))

    def _topic_prompt(self, known_id: str) -> None:
        prompt = odd_prompt(self._rng, known_id)
        self._send("prompt", prompt)

    def _point(self, _: str) -> None:
        rng = self._rng
        point = Point(x=rng.choice(ODD_NUMBERS), y=rng.choice(ODD_NUMBERS), z=rng.choice(ODD_NUMBERS))
        self._send("click", point)
        frame = rng.choice(("camera", "map", "", "x" * 300))
        self._send("clicked_point", PointStamped(header=Header(frame_id=frame), point=point))

    def _depth(self, _: str) -> None:
        rng = self._rng
        depth = odd_image(rng, (24, 32), self._client.now_ns())
        depth.encoding = rng.choice(("32FC1", "16UC1", "rgb8", ""))
        self._send("depth", depth)
        numbers = [rng.choice((*ODD_NUMBERS, 0.0, 100.0)) for _ in range(9)]
        self._send("camera_info", CameraInfo(width=rng.choice((0, 33, 2**32 - 1)), height=24, k=numbers))


# What it says ---------------------------------------------------------------------------------------------------------


def failures(report: Report, memory: Verdict) -> list[str]:
    """What went wrong, a line each; empty when the node has stood it."""
    found = []
    if memory.status:
        found.append(f"memory is not flat: {memory}")
    if report.lost:
        found.append(f"objects were not kept, {len(report.lost)} times, first: {report.lost[0]}")
    if report.unanswered:
        missing = ", ".join(f"{what} ({count})" for what, count in sorted(Counter(report.unanswered).items()))
        found.append(f"not answered within {ANSWER_WITHIN_S:g} s: {missing}")
    p50_ms, p99_ms = np.percentile(report.latencies_ms, (50, 99)) if report.latencies_ms else (math.nan, math.nan)
    if not p99_ms < RATIO * p50_ms:  # NaN fails
        found.append(f"latency p99 {p99_ms:.0f} ms, expected less than {RATIO:g} times p50, {p50_ms:.0f} ms")
    if not report.asked:
        found.append("nothing hostile was done")
    return found


def summary(report: Report) -> str:
    """What was done and how fast the honest user's images were, on one line."""
    p50_ms, p99_ms = np.percentile(report.latencies_ms, (50, 99)) if report.latencies_ms else (math.nan, math.nan)
    done = ", ".join(f"{what} {count}" for what, count in sorted(report.asked.items()))
    return f"latency p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms; hostile: {done}"
