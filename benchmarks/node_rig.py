"""What the node's benchmarks share: the real node as a process of its own, somebody who uses it, and what they see."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from sam2_ros.commands.demo import ros_environment
from sam2_ros.commands.processes import Group, Program, free_domain, running
from sam2_ros.msg import Prompt, TrackedObjectArray
from sam2_ros.node.conversions import SERVICE_QOS, stamp_to_ns
from sam2_ros.session.model_loading import resolve_device
from sam2_ros.srv import ListObjects

READY_TIMEOUT_S = 180.0  # a slow machine renders the scene and loads torch at the same time
CALL_TIMEOUT_S = 60.0
NODE = "/sam2_node"
LOADING = "the model is being loaded"  # as the node's services say it


class BenchmarkError(RuntimeError):
    """The benchmark cannot go on; the message says what was expected and what came."""


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """A number of at least 1, for options."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


# The node -------------------------------------------------------------------------------------------------------------


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which network the node runs, and how."""
    parser.add_argument("--model", default="nano", help="which network the node runs, default nano")
    parser.add_argument("--checkpoint", type=Path, help="its weights file; default: those that ship with the package")
    parser.add_argument(
        "--weights",
        choices=("embedded", "random"),
        default="embedded",
        help="random: takes as long, masks mean nothing",
    )
    parser.add_argument("--device", default="auto", help="where the model runs, as the node's parameter; default auto")
    parser.add_argument("--image-size", type=int, default=0, help="side of the model's input, px; default: its own")
    parser.add_argument("--threads", type=int, default=0, help="the model's CPU threads; default: as PyTorch likes")
    parser.add_argument(
        "--node-module",
        default="sam2_ros.node.sam2_node",
        help="Python module that is run as the node, for one with another network; default sam2_ros.node.sam2_node",
    )


def node_program(args: argparse.Namespace, **parameters: object) -> Program:
    """The node as a process; ``parameters`` beside those of ``add_node_options``."""
    chosen = {"weights": args.weights, "device": args.device, "num_threads": args.threads, **parameters}
    if args.checkpoint is not None:
        chosen["checkpoint"] = args.checkpoint.absolute()
    chosen["model"] = args.model
    if args.image_size:
        chosen["image_size"] = args.image_size
    options = [part for name, value in chosen.items() for part in ("-p", f"{name}:={_parameter_text(value)}")]
    return Program("node", (sys.executable, "-m", args.node_module, "--ros-args", *options))


def _parameter_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe_machine(device: str, threads: int) -> str:
    """What the machine has, for the head of a table: no names of it."""
    cpu = "unknown CPU"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    parts = [cpu, f"{len(os.sched_getaffinity(0))} cores", f"torch {torch.__version__}"]
    parts.append(f"{threads or torch.get_num_threads()} threads")
    resolved = resolve_device(device)
    return ", ".join([*parts, torch.cuda.get_device_name(resolved)] if resolved.startswith("cuda") else parts)


# Somebody who uses the node -------------------------------------------------------------------------------------------


def click_prompt(object_id: str, click: Point, **fields: Any) -> Prompt:
    """A click on the object, in 0..1 of the image."""
    fields = {"point_labels": [1], "action": Prompt.ADD, **fields}
    return Prompt(object_id=object_id, points=[click], normalized=True, **fields)


@dataclass(frozen=True)
class Answer:
    """What the node published for one camera image."""

    stamp_ns: int  # of the camera image
    received_ns: int  # when the label image was here
    objects_received_ns: int
    inference_ms: float
    age_ms: float  # from the camera's stamp until the node published the objects
    frames_dropped: int  # so far, in the node
    object_count: int
    labels: Mapping[str, int] = field(default_factory=dict)  # by object id

    @property
    def latency_ms(self) -> float:
        """From the camera's stamp until the mask was at the client."""
        return (self.received_ns - self.stamp_ns) / 1e6

    @property
    def overhead_ms(self) -> float:
        return self.latency_ms - self.inference_ms

    @property
    def delivery_ms(self) -> float:
        """From when the node published the objects until they were at the client."""
        return (self.objects_received_ns - self.stamp_ns) / 1e6 - self.age_ms


class NodeClient:
    """A node in this process that calls the tracking node's services and keeps its answers by the camera's stamp.

    It does not subscribe to the camera: what the client costs is in what it measures.
    """

    def __init__(self, group: Group, domain: int) -> None:
        self.group = group
        self.answers: dict[int, Answer] = {}
        self.diagnostics: list[dict[str, str]] = []  # the latest at the end, 1 Hz
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("benchmark", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._labels: dict[int, int] = {}  # stamp -> when they were here
        self._objects: dict[int, tuple[int, TrackedObjectArray]] = {}
        self._clients: dict[str, Any] = {}
        results = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(Image, f"{NODE}/label_image", self._on_labels, results)
        self.node.create_subscription(TrackedObjectArray, f"{NODE}/objects", self._on_objects, results)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def forget(self) -> None:
        """Forget all that came so far."""
        for kept in (self.answers, self._labels, self._objects, self.diagnostics):
            kept.clear()

    def spin_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Raises BenchmarkError when it takes longer, and ProcessError when a process has ended."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                raise BenchmarkError(f"waited {timeout_s:.0f} s in vain for {what}")
            self.group.check("the benchmark")
            self._executor.spin_once(timeout_sec=0.1)

    def spin_for(self, wait_s: float) -> None:
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def start(self, kind: Any, name: str, **fields: Any) -> Any:
        """Ask a service, once it is there; the future of its answer. ``name``: with the node's."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name, qos_profile=SERVICE_QOS)
        self.spin_until(self._clients[name].service_is_ready, READY_TIMEOUT_S, f"the service {name}")
        return self._clients[name].call_async(kind.Request(**fields))

    def call(self, kind: Any, name: str, *, within_s: float = CALL_TIMEOUT_S, **fields: Any) -> Any:
        """The answer of a service. BenchmarkError when it does not succeed. ``name``: with the node's."""
        future = self.start(kind, name, **fields)
        self.spin_until(future.done, within_s, f"an answer of {name}")
        answer = future.result()
        if not getattr(answer, "success", True):
            raise BenchmarkError(f"{name} rejects the request: {answer.message}")
        return answer

    def wait_for_node(self) -> None:
        """Wait until the node has tried to load its model. BenchmarkError with its reason when it could not."""
        end_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                self.call(ListObjects, f"{NODE}/list_objects", within_s=READY_TIMEOUT_S)
                return
            except BenchmarkError as error:
                if LOADING not in str(error) or time.monotonic() > end_s:
                    raise
            self.spin_for(0.1)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def _on_labels(self, message: Image) -> None:
        received_ns = self.now_ns()
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._labels[stamp_ns] = received_ns
        self._join(stamp_ns)

    def _on_objects(self, message: TrackedObjectArray) -> None:
        received_ns = self.now_ns()
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._objects[stamp_ns] = received_ns, message
        self._join(stamp_ns)

    def _join(self, stamp_ns: int) -> None:
        if stamp_ns not in self._labels or stamp_ns not in self._objects:
            return
        objects_received_ns, message = self._objects.pop(stamp_ns)
        self.answers[stamp_ns] = Answer(
            stamp_ns,
            self._labels.pop(stamp_ns),
            objects_received_ns,
            float(message.inference_ms),
            float(message.age_ms),
            int(message.frames_dropped),
            len(message.objects),
            {item.object_id: item.label for item in message.objects},
        )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics += [
            {pair.key: pair.value for pair in status.values}
            for status in message.status
            if status.name.endswith(": tracking")
        ]


@contextlib.contextmanager
def node_at_work(programs: Sequence[Program]) -> Iterator[NodeClient]:
    """Start the processes in a ROS domain of their own; a client of the node. All are ended on leaving."""
    with free_domain() as domain:
        environment = ros_environment(domain)
        os.environ.update(environment)  # the client's middleware reads it, too
        with running(programs, environment) as group, contextlib.closing(NodeClient(group, domain)) as client:
            yield client
