"""The demo client's ears: a node that stores what the camera and the tracking node publish, by the camera's stamp."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from sam2_ros.demo.report import LabelImage, Output, PackedImage, SeenObject
from sam2_ros.image_io.encodings import image_to_rgb
from sam2_ros.msg import TrackedObjectArray
from sam2_ros.node.conversions import stamp_to_ns
from sam2_ros.srv import AddObjects, ListObjects, Reset
from sam2_ros.tracking.types import ObjectState

# Before the prompts nothing is judged, and waiting may take long: only so many images are kept.
KEPT_WHILE_WAITING = 30


@dataclass(frozen=True)
class ReceivedLabels:
    """A label image, and when it was here."""

    received_ns: int
    labels: PackedImage


@dataclass(frozen=True)
class ReceivedObjects:
    """The objects of one image."""

    objects: tuple[SeenObject, ...]
    inference_ms: float


@dataclass
class Inbox:
    """What has come so far, by the camera's stamp."""

    images: dict[int, PackedImage] = field(default_factory=dict)
    labels: dict[int, ReceivedLabels] = field(default_factory=dict)
    objects: dict[int, ReceivedObjects] = field(default_factory=dict)
    size_wh: tuple[int, int] | None = None

    def forget_before(self, stamp_ns: int) -> None:
        """Drop what belongs to older images."""
        self.images = {stamp: value for stamp, value in self.images.items() if stamp >= stamp_ns}
        self.labels = {stamp: value for stamp, value in self.labels.items() if stamp >= stamp_ns}
        self.objects = {stamp: value for stamp, value in self.objects.items() if stamp >= stamp_ns}

    def outputs(self) -> dict[int, Output]:
        """Answers that came whole: label image and objects of the same stamp."""
        return {
            stamp: Output(
                stamp, got.received_ns, got.labels, self.objects[stamp].objects, self.objects[stamp].inference_ms
            )
            for stamp, got in self.labels.items()
            if stamp in self.objects
        }


class InboxNode(Node):
    """Subscriptions, whose callbacks only store, and the demo's service clients."""

    def __init__(self, tracker: str, camera: str, *, context: rclpy.Context | None = None) -> None:
        """``tracker`` and ``camera``: full names of the two nodes."""
        super().__init__("demo_client", context=context)
        self.inbox = Inbox()
        self._from_ns: int | None = None
        results = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
        self._image = self.create_subscription(Image, "image", self._on_image, qos_profile_sensor_data)
        self.create_subscription(Image, f"{tracker}/label_image", self._on_labels, results)
        self.create_subscription(TrackedObjectArray, f"{tracker}/objects", self._on_objects, results)
        self.add_objects = self.create_client(AddObjects, f"{tracker}/add_objects")
        self.list_objects = self.create_client(ListObjects, f"{tracker}/list_objects")
        self.reset = self.create_client(Reset, f"{tracker}/reset")
        self.set_camera = self.create_client(SetParameters, f"{camera}/set_parameters")
        self.start_camera = self.create_client(Trigger, f"{camera}/start")

    def camera_is_there(self) -> bool:
        """Whether anybody publishes images."""
        return self.count_publishers(self._image.topic_name) > 0  # resolved: counting does not follow remaps

    def keep_from(self, stamp_ns: int) -> None:
        """Forget what is older than this image, and keep everything that comes from now on."""
        self._from_ns = stamp_ns  # what is still on its way may be older, too
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
            labels = PackedImage.labels(read_label_image(message))
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


def read_label_image(message: Image) -> LabelImage:
    """(H, W) labels of a mono8 or mono16 image. Raises ValueError for another encoding."""
    if message.encoding not in ("mono8", "mono16"):
        raise ValueError(f"expected a label image in mono8 or mono16, got {message.encoding!r}")
    kind = np.dtype("u1") if message.encoding == "mono8" else np.dtype(">u2" if message.is_bigendian else "<u2")
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[
        :, : message.width * kind.itemsize
    ]
    labels: LabelImage = np.ascontiguousarray(rows).view(kind).astype(kind.newbyteorder("="))
    return labels
