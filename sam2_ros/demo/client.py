"""The demo's user: prompts objects through the node's service, lets the camera run, and judges every mask that comes.

Writes ``overlay.mp4``, ``overlay.png`` and ``report.json`` into a folder. Only messages and services connect the client
with the node and the camera; it renders the true masks itself, from the frame numbers in the camera's stamps.
"""

from __future__ import annotations

import argparse
import functools
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from sam2_ros.client import Sam2Client
from sam2_ros.client_results import Sam2Error
from sam2_ros.data.prompt_text import PromptSpec
from sam2_ros.demo.camera import RATE_PARAMETER
from sam2_ros.demo.report import (
    DemoReport,
    IouTally,
    Output,
    PackedImage,
    Recording,
    SeenObject,
    judge,
    measure_speed,
    write_pictures,
)
from sam2_ros.demo.stream import (
    MAX_RATE_HZ,
    TABLETOP_FRAMES,
    StreamSpec,
    Wish,
    add_stream_options,
    index_of_stamp,
    make_wish,
    stream_spec,
)
from sam2_ros.image_io.encodings import image_to_rgb
from sam2_ros.msg import TrackedObjectArray
from sam2_ros.node.conversions import image_to_labels, stamp_to_ns
from sam2_ros.node.rclpy_support import MODEL_IS_LOADING
from sam2_ros.tracking.types import ObjectState

# Before the prompts nothing is judged, and waiting may take long: only so many images are kept.
KEPT_WHILE_WAITING = 30
PROGRESS_EVERY_S = 2.0
READY_TIMEOUT_S = 180.0  # a slow machine renders the scene and loads torch at the same time
FIRST_MASK_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 20.0
DRAIN_TIMEOUT_S = 3.0
RATE_TRIAL_FRAMES = 16
RATE_HEADROOM = 0.8
NODE_OVERHEAD_MS = 10.0
MIN_RATE_HZ = 0.3
# In the rendered scene the ball has by then come out from behind the packet.
PICTURE_AT = 0.58


T = TypeVar("T")


class DemoError(RuntimeError):
    """The demo cannot continue; the message says what was expected and what came."""


def say(text: str) -> None:
    """Progress, for people."""
    print(text, flush=True)


@dataclass(frozen=True)
class ReceivedLabels:
    """A label image, and when it was received."""

    received_ns: int
    labels: PackedImage


@dataclass(frozen=True)
class ReceivedObjects:
    """The objects of one image."""

    objects: tuple[SeenObject, ...]
    inference_ms: float


@dataclass
class Inbox:
    """The messages received so far, by the camera's stamp."""

    images: dict[int, PackedImage] = field(default_factory=dict)
    labels: dict[int, ReceivedLabels] = field(default_factory=dict)
    objects: dict[int, ReceivedObjects] = field(default_factory=dict)
    size_wh: tuple[int, int] | None = None

    def forget_before(self, stamp_ns: int) -> None:
        """Drop the messages of older images."""
        self.images = {stamp: value for stamp, value in self.images.items() if stamp >= stamp_ns}
        self.labels = {stamp: value for stamp, value in self.labels.items() if stamp >= stamp_ns}
        self.objects = {stamp: value for stamp, value in self.objects.items() if stamp >= stamp_ns}

    def outputs(self) -> dict[int, Output]:
        """The complete outputs: label image and objects of the same stamp."""
        return {
            stamp: Output(
                stamp, got.received_ns, got.labels, self.objects[stamp].objects, self.objects[stamp].inference_ms
            )
            for stamp, got in self.labels.items()
            if stamp in self.objects
        }


class InboxNode(Node):
    """Subscriptions, whose callbacks only store, and clients of the tracking node and of the camera."""

    def __init__(self, tracker: str, camera: str, *, context: rclpy.Context | None = None) -> None:
        """``tracker`` and ``camera``: full names of the two nodes."""
        super().__init__("demo_client", context=context)
        self.inbox = Inbox()
        self._from_ns: int | None = None
        results = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
        self._image = self.create_subscription(Image, "image", self._on_image, qos_profile_sensor_data)
        self.create_subscription(Image, f"{tracker}/label_image", self._on_labels, results)
        self.create_subscription(TrackedObjectArray, f"{tracker}/objects", self._on_objects, results)
        self.sam2 = Sam2Client(self, tracker, timeout_s=READY_TIMEOUT_S)
        self.set_camera = self.create_client(SetParameters, f"{camera}/set_parameters")
        self.start_camera = self.create_client(Trigger, f"{camera}/start")

    def close(self) -> None:
        self.sam2.close()
        self.destroy_node()

    def camera_is_there(self) -> bool:
        """Whether anybody publishes images."""
        return self.count_publishers(self._image.topic_name) > 0  # resolved: counting does not follow remaps

    def keep_from(self, stamp_ns: int) -> None:
        """Forget the messages of images older than this one, and keep everything from now on."""
        self._from_ns = stamp_ns  # messages in transit may be of older images, too
        self.inbox.forget_before(stamp_ns)

    def _on_image(self, message: Image) -> None:
        self.inbox.size_wh = (message.width, message.height)
        stamp_ns = stamp_to_ns(message.header.stamp)
        if self._is_wanted(stamp_ns):
            self.inbox.images[stamp_ns] = PackedImage.photo(image_to_rgb(message))
        if self._from_ns is None and len(self.inbox.images) > KEPT_WHILE_WAITING:
            self.inbox.forget_before(sorted(self.inbox.images)[-KEPT_WHILE_WAITING])

    def _on_labels(self, message: Image) -> None:
        received_ns = self.get_clock().now().nanoseconds
        stamp_ns = stamp_to_ns(message.header.stamp)
        if self._is_wanted(stamp_ns):
            labels = PackedImage.labels(image_to_labels(message))
            self.inbox.labels[stamp_ns] = ReceivedLabels(received_ns, labels)

    def _on_objects(self, message: TrackedObjectArray) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        objects = tuple(
            SeenObject(o.object_id, o.label, ObjectState(o.state), o.score, o.mask_quality) for o in message.objects
        )
        if self._is_wanted(stamp_ns):
            self.inbox.objects[stamp_ns] = ReceivedObjects(objects, float(message.inference_ms))

    def _is_wanted(self, stamp_ns: int) -> bool:
        return self._from_ns is None or stamp_ns >= self._from_ns


class DemoRun:
    """The steps of one demo, each with a deadline."""

    def __init__(self, client: InboxNode, executor: SingleThreadedExecutor) -> None:
        self._client = client
        self._executor = executor

    def wait_until_ready(self) -> tuple[int, int]:
        """Wait for camera images and for the node to have processed one; the image's width and height."""
        inbox = self._client.inbox
        self._spin_until(lambda: inbox.size_wh is not None, READY_TIMEOUT_S, "an image of the camera")
        self._wait_for_the_model()
        self._spin_until(lambda: bool(inbox.objects), READY_TIMEOUT_S, "the node's first answer to an image")
        assert inbox.size_wh is not None
        return inbox.size_wh

    def _wait_for_the_model(self) -> None:
        """Wait until the node has loaded its model, or says why it could not: meanwhile it answers that it loads."""
        end_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                self._answer_of(self._client.sam2.list_async(), "the node cannot work")
                return
            except DemoError as error:
                if MODEL_IS_LOADING not in str(error) or time.monotonic() > end_s:
                    raise
                self._executor.spin_once(timeout_sec=0.1)

    def prompt(self, prompts: Sequence[PromptSpec]) -> dict[str, int]:
        """Ask for the objects, and wait for their first masks; each object's label. Older images are forgotten."""
        add = functools.partial(self._client.sam2.add_async, timeout_s=FIRST_MASK_TIMEOUT_S)
        asked = [
            add(str(p.object_id), points=p.points or None, labels=p.labels if p.points else None, box=p.box)
            for p in prompts
        ]
        replies = [self._answer_of(future, "the node rejected a prompt") for future in asked]
        if any(reply.state is ObjectState.PENDING for reply in replies):
            raise DemoError(f"no mask came within {FIRST_MASK_TIMEOUT_S:.0f} s of the prompts")
        self._client.keep_from(max(reply.stamp_ns for reply in replies))
        return {reply.object_id: reply.label for reply in replies}

    def find_rate(self, prompts: Sequence[PromptSpec]) -> float:
        """The camera rate in Hz at which no frame is dropped, measured by tracking the objects in the first frame.

        The objects are removed again. A demo shows the masks, not how a slow machine drops frames; give a rate to see
        that.
        """
        self.prompt(prompts)
        inbox = self._client.inbox
        self._spin_until(lambda: len(inbox.objects) >= RATE_TRIAL_FRAMES, READY_TIMEOUT_S, "answers to the first frame")
        # The last frames only, because a frame takes longer once the memory is full.
        late = [inbox.objects[stamp].inference_ms for stamp in sorted(inbox.objects)[RATE_TRIAL_FRAMES // 2 :]]
        busy_s = (float(np.percentile(late, 80)) + NODE_OVERHEAD_MS) / 1e3
        rate_hz = min(max(RATE_HEADROOM / busy_s, MIN_RATE_HZ), MAX_RATE_HZ)
        self._answer_of(self._client.sam2.reset_async(), "the node cannot start again")
        return rate_hz

    def set_rate(self, rate_hz: float) -> None:
        """Set the camera's frames per second."""
        request = SetParameters.Request(parameters=[Parameter(RATE_PARAMETER, value=rate_hz).to_parameter_msg()])
        answer = self._call(self._client.set_camera, request, 10.0, "set_parameters of the camera").results[0]
        if not answer.successful:
            raise DemoError(f"the camera rejects {rate_hz:g} Hz: {answer.reason}")

    def follow(self, frame_count: int | None) -> Recording:
        """Start the camera's stream, and record until the camera has left and the last output has arrived."""
        answer = self._call(self._client.start_camera, Trigger.Request(), 10.0, "start")
        if not answer.success:
            raise DemoError(f"the camera does not start: {answer.message}")
        inbox = self._client.inbox
        said_s, heard_s, heard = time.monotonic(), time.monotonic(), 0
        while self._client.camera_is_there():
            self._executor.spin_once(timeout_sec=0.2)
            now_s = time.monotonic()
            if len(inbox.images) != heard:
                heard, heard_s = len(inbox.images), now_s
            if now_s - heard_s > IDLE_TIMEOUT_S:
                raise DemoError(f"the camera is there, but no image came for {IDLE_TIMEOUT_S:.0f} s")
            if now_s - said_s > PROGRESS_EVERY_S and inbox.images:
                said_s = now_s
                frame = index_of_stamp(max(inbox.images)) + 1
                of_all = f" of {frame_count}" if frame_count else ""
                speed = measure_speed(list(inbox.outputs().values()))
                say(f"frame {frame}{of_all}: {len(inbox.labels)} masks, {speed.fps:.1f} per second")
        end_s = time.monotonic() + DRAIN_TIMEOUT_S
        while time.monotonic() < end_s and max(inbox.images, default=0) > max(inbox.outputs(), default=0):
            self._executor.spin_once(timeout_sec=0.1)
        return Recording(dict(inbox.images), inbox.outputs(), frame_count)

    def _call(self, service: Any, request: Any, timeout_s: float, what: str) -> Any:
        self._spin_until(service.service_is_ready, READY_TIMEOUT_S, f"the service {what}")
        future = service.call_async(request)
        self._spin_until(future.done, timeout_s, f"an answer of {what}")
        return future.result()

    def _answer_of(self, future: Future[T], trouble: str) -> T:
        """The tracking node's answer, while the subscriptions continue."""
        self._spin_until(future.done, READY_TIMEOUT_S + 10, "an answer of the tracking node")
        try:
            return future.result()
        except Sam2Error as error:
            raise DemoError(f"{trouble}: {error}") from error

    def _spin_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                raise DemoError(f"waited {timeout_s:.0f} s in vain for {what}")
            self._executor.spin_once(timeout_sec=0.1)


def make_report(
    recording: Recording, wish: Wish, labels: dict[str, int], args: argparse.Namespace, rate_hz: float
) -> DemoReport:
    """Judge a run and write its pictures. Raises DemoError when there is nothing to judge."""
    if not recording.outputs:
        raise DemoError("not one mask came from the node; its log says more")
    tally = None
    if wish.truth is not None:
        say("comparing with the truth")
        tally = IouTally(wish.truth.truth_ids, labels)
        judge(recording, wish.truth.ids_of, tally)
    say(f"drawing {len(recording.images)} frames")
    picture_at = PICTURE_AT if wish.truth is not None else 0.5
    overlay = write_pictures(recording, args.out, rate_hz=rate_hz, picture_at=picture_at)
    speed = measure_speed(list(recording.outputs.values()))
    return DemoReport(
        frames=len(recording.outputs),
        objects=len(labels),
        fps=speed.fps,
        latency_ms_p50=speed.latency_ms_p50,
        latency_ms_p95=speed.latency_ms_p95,
        dropped=len(recording.camera_frames()) - len(recording.outputs),
        mean_iou=tally.mean() if tally is not None else None,
        overlay=str(overlay),
        iou=tally.per_object() if tally is not None else None,
        inference_ms_p50=speed.inference_ms_p50,
        source=args.source or "tabletop",
        model=args.model,
        rate_hz=rate_hz,
    )


def known_frame_count(spec: StreamSpec) -> int | None:
    """How many frames the camera will show; None for a file, because frame counts of video files are unreliable."""
    return (spec.frames or TABLETOP_FRAMES) if spec.rendered else None


def run_demo(client: InboxNode, executor: SingleThreadedExecutor, args: argparse.Namespace) -> DemoReport:
    """The whole demo, from waiting for the others to the report."""
    spec = stream_spec(args)
    run = DemoRun(client, executor)
    size_wh = run.wait_until_ready()
    wish = make_wish(spec, args.prompt, size_wh)
    rate_hz = args.rate_hz
    if rate_hz is None:
        say(f"camera image {size_wh[0]}x{size_wh[1]}; finding out how fast the node is")
        rate_hz = run.find_rate(wish.prompts)
        run.set_rate(rate_hz)
    say(f"asking for {', '.join(str(p.object_id) for p in wish.prompts)}")
    labels = run.prompt(wish.prompts)
    say(f"the node has found them; the camera runs at {rate_hz:.1f} Hz")
    recording = run.follow(known_frame_count(spec))
    return make_report(recording, wish, labels, args, rate_hz)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo's user; the report is in ``report.json`` when this returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_stream_options(parser)
    parser.add_argument("--prompt", action="append", default=[], help="x,y or x0,y0,x1,y1 in pixels: an object")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder for the results")
    parser.add_argument("--model", default="nano", help="for the report only")
    parser.add_argument("--tracker", default="/sam2_node", help="full name of the tracking node")
    parser.add_argument("--camera", default="/demo_camera", help="full name of the camera's node")
    arguments = list(sys.argv if argv is None else argv)
    args = parser.parse_args(remove_ros_args(arguments)[1:])
    # rclpy's signal handler shuts the context down; Python's would raise KeyboardInterrupt in the middle of a callback.
    signal.signal(signal.SIGINT, lambda *_: None)
    rclpy.init(args=arguments)
    executor = SingleThreadedExecutor()
    client = InboxNode(args.tracker, args.camera)
    executor.add_node(client)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        report = run_demo(client, executor, args)
        (args.out / "report.json").write_text(report.as_json() + "\n", encoding="utf-8")
        return 0
    except (DemoError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except ExternalShutdownException:
        return 1
    finally:
        client.close()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
