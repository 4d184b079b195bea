"""``Sam2Client``: a running ``sam2_node`` from Python, for a script or for another node.

    with Sam2Client() as sam2:
        sam2.add("mug", points=(320, 240))
        for result in sam2.results():
            print(result["mug"].state.name, result["mug"].mask.sum())

Masks are numpy arrays. Each call that waits has a twin with ``_async`` that returns a ``concurrent.futures.Future``.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from numpy.typing import ArrayLike, NDArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from sam2_ros.client_results import (
    RESULTS_KEPT,
    PromptReply,
    ResultStream,
    ResultStreams,
    Sam2Error,
    Sam2Result,
    SegmentedImageMask,
    make_result,
    read_reply,
    read_segmentation,
)
from sam2_ros.msg import Prompt, TrackedObjectArray
from sam2_ros.node.conversions import SERVICE_QOS, array_to_image, make_prompt
from sam2_ros.srv import AddObjects, Clear, ListObjects, RefineObject, RemoveObjects, Reset, SegmentImage
from sam2_ros.tracking.types import ObjectState, TrackedMask

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_MARGIN_S = 5.0  # for an answer to arrive, beyond the time that the node itself waits
POLL_S = 0.02  # how often pending requests check for their service and their deadline


def _blocking(start: Callable[Concatenate[Sam2Client, P], Future[T]]) -> Callable[Concatenate[Sam2Client, P], T]:
    """The blocking form of the asynchronous call ``start``."""

    @functools.wraps(start)
    def call(self: Sam2Client, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_thread(start.__name__)
        return start(self, *args, **kwargs).result()

    return call


class Sam2Client:
    """A ``sam2_node``, wherever it runs.

    The client has a node of its own that a thread of its own spins, so calls that wait are safe everywhere, also in a
    callback of a single-threaded executor. Only callbacks of the client's own futures run on that thread: there, use
    the ``_async`` calls.

    Args:
        node: gives the ROS context, the namespace and the remappings; without it the client uses the default context
            if there is one, else it makes one and ends it in ``close``.
        target: name of the ``sam2_node``.
        timeout_s: how long to wait for a service to be available and to answer.
    """

    def __init__(self, node: Node | None = None, target: str = "/sam2_node", timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s
        self._owned_context: rclpy.Context | None = None
        context = node.context if node is not None else rclpy.get_default_context()
        if not context.ok():
            context = self._owned_context = rclpy.Context()
            rclpy.init(args=[], context=context)
        name = f"{node.get_name()}_sam2_client" if node is not None else "sam2_client"
        namespace = node.get_namespace() if node is not None else None
        self._node = rclpy.create_node(name, context=context, namespace=namespace, start_parameter_services=False)
        self._resolve_topic = (node or self._node).resolve_topic_name
        self._resolve_service = (node or self._node).resolve_service_name
        self._target = target.rstrip("/")
        self._streams = ResultStreams()
        self._lock = threading.Lock()  # guards all below
        self._clients: dict[str, Any] = {}
        self._pending: list[_Request] = []
        self._subscribed: set[str] = set()
        self._closed = ""  # why nothing is answered any more
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._node.create_timer(POLL_S, self._look_after_requests, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._thread = threading.Thread(target=self._spin, name="sam2_client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Sam2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, the iterators and the calls that wait."""
        self._end("the client was closed")
        self._executor.shutdown()
        if threading.current_thread() is not self._thread:
            self._thread.join(ANSWER_MARGIN_S)
        if self._node.context.ok():
            self._node.destroy_node()
        if self._owned_context is not None:
            self._owned_context.try_shutdown()

    # Objects ---------------------------------------------------------------------------------------------------------

    def add_async(
        self,
        object_id: str = "",
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: NDArray[Any] | None = None,
        class_id: str = "",
        normalized: bool = False,
        stamp: Time | Header | int | None = None,
        wait: bool = True,
        timeout_s: float | None = None,
    ) -> Future[PromptReply]:
        """Start to track a new object.

        Args:
            object_id: its name; empty = the node chooses one.
            points: (x, y), or several, in pixels of the camera image (0..1 with ``normalized``).
            labels: for each point 1 (on the object) or 0 (not); all 1 when not given.
            box: x0, y0, x1, y1.
            mask: (H, W), not 0 on the object; alone, without points or a box.
            class_id: what kind of thing it is.
            normalized: whether points and box are in 0..1 of the image size.
            stamp: of the image that the prompt is for: a message's stamp or header, or nanoseconds; None = the next.
            wait: for the first image with the prompt, whose mask is in the reply.
            timeout_s: overrides the client's.

        Raises:
            Sam2Error: the node rejected the prompt or did not answer.
            ValueError: the values are not such points, labels, a box or a mask.
        """
        prompt = make_prompt(object_id, points, labels, box, mask, normalized, stamp)
        prompt.class_id, prompt.action = class_id, Prompt.ADD
        limit_s = self._limit_s(timeout_s)
        fields = {"prompts": [prompt], "wait": wait, "timeout_s": limit_s}
        return self._call(AddObjects, "add_objects", limit_s, lambda a: read_reply(a.results[0], a.objects), fields)

    def refine_async(
        self,
        object_id: str,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: NDArray[Any] | None = None,
        normalized: bool = False,
        stamp: Time | Header | int | None = None,
        replace: bool = False,
        wait: bool = True,
        timeout_s: float | None = None,
    ) -> Future[PromptReply]:
        """Correct a known object or, with ``replace``, start it again; the arguments are those of ``add``."""
        prompt = make_prompt(object_id, points, labels, box, mask, normalized, stamp)
        prompt.action = Prompt.REPLACE if replace else Prompt.REFINE
        return self._refine(prompt, wait, timeout_s)

    def undo_async(self, object_id: str, *, wait: bool = True, timeout_s: float | None = None) -> Future[PromptReply]:
        """Take back the latest prompt of an object."""
        return self._refine(Prompt(object_id=object_id, action=Prompt.UNDO), wait, timeout_s)

    def _refine(self, prompt: Prompt, wait: bool, timeout_s: float | None) -> Future[PromptReply]:
        limit_s = self._limit_s(timeout_s)
        fields = {"prompt": prompt, "wait": wait, "timeout_s": limit_s}
        return self._call(RefineObject, "refine_object", limit_s, lambda a: read_reply(a.result, a.objects), fields)

    def remove_async(self, *object_ids: str) -> Future[tuple[str, ...]]:
        """Stop tracking these objects: all of them, or none and Sam2Error; the removed ids."""
        fields = {"object_ids": list(object_ids)}
        return self._call(RemoveObjects, "remove_objects", self._timeout_s, lambda a: tuple(a.removed), fields)

    def clear_async(self) -> Future[tuple[str, ...]]:
        """Remove all objects; their names and labels are not used again."""
        return self._call(Clear, "clear", self._timeout_s, lambda answer: tuple(answer.removed))

    def reset_async(self) -> Future[tuple[str, ...]]:
        """Remove all objects; counters, labels and the buffer of past images start anew, too."""
        return self._call(Reset, "reset", self._timeout_s, lambda answer: tuple(answer.removed))

    def enable_async(self, enabled: bool = True) -> Future[None]:
        """While not enabled the node ignores images; objects stay."""
        return self._call(SetBool, "enable", self._timeout_s, lambda answer: None, {"data": enabled})

    def list_async(self) -> Future[Sam2Result]:
        """The tracked objects as of the latest image, without masks."""
        return self._call(ListObjects, "list_objects", self._timeout_s, lambda answer: make_result(answer.objects))

    def segment_async(
        self,
        image_rgb: NDArray[np.uint8] | None = None,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: NDArray[Any] | None = None,
        normalized: bool = False,
        everything: bool = False,
        multimask: bool = False,
        timeout_s: float | None = None,
    ) -> Future[tuple[SegmentedImageMask, ...]]:
        """Masks of a single image; tracked objects are not affected.

        Args:
            image_rgb: (H, W, 3) uint8 RGB; None = the newest image that the node has processed.
            points, labels, box, mask, normalized: one prompt, as of ``add``.
            everything: find the things in the image without a prompt.
            multimask: three masks, best first, instead of the best one.
            timeout_s: overrides the client's.
        """
        given = any(value is not None for value in (points, box, mask))
        prompts = [make_prompt("", points, labels, box, mask, normalized, None)] if given else []
        limit_s = self._limit_s(timeout_s)
        image = Image() if image_rgb is None else array_to_image(np.asarray(image_rgb, np.uint8), "rgb8", Header())
        fields = {"image": image, "prompts": prompts, "everything": everything, "multimask": multimask}
        fields["timeout_s"] = limit_s
        return self._call(SegmentImage, "segment_image", limit_s, read_segmentation, fields)

    add = _blocking(add_async)
    refine = _blocking(refine_async)
    undo = _blocking(undo_async)
    remove = _blocking(remove_async)
    clear = _blocking(clear_async)
    reset = _blocking(reset_async)
    enable = _blocking(enable_async)
    list = _blocking(list_async)
    segment = _blocking(segment_async)

    # Results ---------------------------------------------------------------------------------------------------------

    def results(self, *, masks: bool = True, timeout_s: float | None = None) -> Iterator[Sam2Result]:
        """The results from now on, image by image, until ``close``.

        A reader slower than the camera misses images, but never the newest one. Masks come from ``~/label_image``
        (``publish_label_image``), where each pixel belongs to one object only, unless ``publish_masks`` is set.

        Raises:
            Sam2Error: no result for ``timeout_s``; None = wait for ever.
        """
        return self._open_stream(masks).read(timeout_s)

    def on_objects(self, callback: Callable[[Sam2Result], None], *, masks: bool = True) -> Callable[[], None]:
        """Call ``callback`` with every result, on a thread of its own; the returned function ends that."""
        stream = self._open_stream(masks)

        def deliver() -> None:
            for result in stream.read(None):
                callback(result)

        threading.Thread(target=deliver, name="sam2_client_callback", daemon=True).start()
        return stream.close

    def wait_for(
        self, object_id: str, state: ObjectState = ObjectState.TRACKED, timeout_s: float | None = None
    ) -> TrackedMask:
        """The object in the next image in which it has this state; Sam2Error if that does not happen in time."""
        self._check_thread("wait_for")
        end_s = time.monotonic() + self._limit_s(timeout_s)
        seen = "no result came"
        stream = self._open_stream(masks=True)
        try:
            while (left_s := end_s - time.monotonic()) > 0 and (result := stream.next(left_s)) is not None:
                if object_id not in result:
                    seen = f"it is not known; known: {', '.join(each.object_id for each in result) or 'none'}"
                elif result[object_id].state is state:
                    return result[object_id]
                else:
                    seen = f"it is {result[object_id].state.name}"
        finally:
            stream.close()
        raise Sam2Error(f"{object_id!r} was not {state.name} within {self._limit_s(timeout_s):g} s: {seen}")

    def _open_stream(self, masks: bool) -> ResultStream:
        with self._lock:
            if self._closed:
                raise Sam2Error(self._closed)
        stream = self._streams.open(masks)
        self._subscribe("objects", TrackedObjectArray, self._streams.put_objects)
        if masks:
            self._subscribe("label_image", Image, self._streams.put_label_image)
        return stream

    def _subscribe(self, name: str, kind: Any, callback: Callable[[Any], None]) -> None:
        with self._lock:
            if name in self._subscribed:
                return
            self._subscribed.add(name)
        qos = QoSProfile(depth=RESULTS_KEPT, reliability=ReliabilityPolicy.RELIABLE)
        self._node.create_subscription(kind, self._resolve_topic(f"{self._target}/{name}"), callback, qos)

    # Requests --------------------------------------------------------------------------------------------------------

    def _limit_s(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else float(timeout_s)

    def _check_thread(self, what: str) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{what} in a callback of the client's future waits for itself: use the _async call")

    def _call(
        self, kind: Any, name: str, limit_s: float, read: Callable[[Any], T], fields: dict[str, Any] | None = None
    ) -> Future[T]:
        """Send a request once the service is available; the future's result is ``read(answer)`` of a successful one."""
        end_s = time.monotonic() + limit_s + ANSWER_MARGIN_S
        with self._lock:
            if self._closed:
                raise Sam2Error(self._closed)
            full_name = self._resolve_service(f"{self._target}/{name}")
            if name not in self._clients:
                self._clients[name] = self._node.create_client(kind, full_name, qos_profile=SERVICE_QOS)
            request = _Request(full_name, self._clients[name], kind.Request(**(fields or {})), end_s, read)
            request.send_if_possible()
            self._pending.append(request)
        return request.future

    def _look_after_requests(self) -> None:
        with self._lock:
            self._pending = [request for request in self._pending if not request.future.done()]
            for request in self._pending:
                request.send_if_possible()
            late = [request for request in self._pending if time.monotonic() > request.end_s]
        for request in late:  # without the lock: this runs the callbacks of their futures
            request.fail("no answer in time" if request.sent else "no such service: is the node running?")

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass
        except Exception:
            if self._node.context.ok() and not self._closed:
                raise
            # The ROS context was shut down during a call.
        finally:  # whoever waits would wait for ever
            self._end("ROS was shut down")

    def _end(self, why: str) -> None:
        """End the iterators, and the calls that wait and all later ones with the reason."""
        with self._lock:
            self._closed = self._closed or why
            requests, self._pending = self._pending, []
        self._streams.close()
        for request in requests:
            request.fail(self._closed)


class _Request:
    """One pending call of a service."""

    def __init__(self, name: str, client: Any, request: Any, end_s: float, read: Callable[[Any], Any]) -> None:
        self.name, self.end_s, self.sent = name, end_s, False
        self.future: Future[Any] = Future()
        self._call: Any = None  # rclpy's future, once sent
        self._client, self._request, self._read = client, request, read

    def send_if_possible(self) -> None:
        if not self.sent and not self.future.done() and self._client.service_is_ready():
            self.sent = True
            self._call = self._client.call_async(self._request)
            self._call.add_done_callback(self._answer)

    def fail(self, reason: str) -> None:
        if self._call is not None:
            self._client.remove_pending_request(self._call)  # rclpy would keep it for ever
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(Sam2Error(f"{self.name}: {reason}"))

    def _answer(self, done: Any) -> None:
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        try:
            answer = done.result()
            if not answer.success:
                raise Sam2Error(f"{self.name}: {answer.message}")
            self.future.set_result(self._read(answer))
        except Exception as error:
            self.future.set_exception(error)
