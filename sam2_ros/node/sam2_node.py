"""``sam2_node``: the tracking session as a ROS 2 lifecycle node.

configure loads the model and creates the publishers, activate creates the subscriptions, deactivate destroys the
subscriptions and keeps model and objects, cleanup releases both. The services exist from construction on; while the
node is not configured they answer with the reason.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from sam2_ros.heap import keep_heap
from sam2_ros.node import ros_parameters
from sam2_ros.node.background import ModelLoader, done_within, in_thread, start
from sam2_ros.node.conversions import decode_image
from sam2_ros.node.diagnostics import DiagnosticsReporter, image_topic_names, inspect_image_topic
from sam2_ros.node.graph import GraphWatch, IdleWatch
from sam2_ros.node.optional.detections import DetectionSubscription, make_detection_subscription
from sam2_ros.node.optional.pairing import ImagePairing
from sam2_ros.node.optional.tf import Transforms
from sam2_ros.node.publishers import EventPublisher, Publishers
from sam2_ros.node.rclpy_support import (
    CONFIGURE,
    MODEL_IS_LOADING,
    RosLogHandler,
    TransitionServer,
    break_reference_cycle,
    logs_exceptions,
)
from sam2_ros.node.services import Services
from sam2_ros.node.subscriptions import SpatialSubscriptions, Subscriptions, TopicMonitor
from sam2_ros.perception.depth import DepthSource
from sam2_ros.session.events import Event, EventType
from sam2_ros.session.model_loading import SharedNetworks, describe_model, load_configured_tracker
from sam2_ros.session.objects import TrackerLike, TrackingView
from sam2_ros.session.parameter_spec import ParameterError
from sam2_ros.session.parameters import NodeParameters, camera_names
from sam2_ros.session.session import Session
from sam2_ros.tracking.concurrency import TaskThread

HEARTBEAT_S = 1.0
OK = TransitionCallbackReturn.SUCCESS
STOP_LIMIT_S, ENDING_LIMIT_S = 30.0, 3.0  # for the model's image; at the end launch escalates to SIGTERM after 5 s


class Sam2Node(LifecycleNode):
    """The node.

    ``tracker_factory`` makes the tracker from the parameters; tests pass one without a network. ``model_thread`` is
    shared by nodes whose trackers share a network.
    """

    def __init__(
        self,
        *,
        tracker_factory: Callable[[NodeParameters], TrackerLike] = load_configured_tracker,
        model_thread: TaskThread | None = None,
        **node_options: Any,
    ) -> None:
        super().__init__("sam2_node", **node_options)
        self._model = ModelLoader(self, tracker_factory, model_thread or TaskThread())
        self._log_handler = RosLogHandler(self.get_logger())
        self._log_handler.install()
        ros_parameters.declare(self)
        self._session: Session | None = None
        self._outputs: Publishers | None = None
        self._events: EventPublisher | None = None
        self._inputs: Subscriptions | None = None
        self._spatial_inputs: SpatialSubscriptions | None = None
        self._detections: DetectionSubscription | None = None  # None without vision_msgs
        self._transforms = Transforms(self)
        self._watch: TopicMonitor | None = None  # only while active
        self.trouble = ""  # why the node is not configured, if it should be
        self.left_behind = False  # whether a thread still computes at shutdown
        self._stopped: bool | None = None  # whether the session has ended in time, once that was tried
        self._depth = DepthSource(self._current_parameters, self._waiting_ns)
        self._guard = ros_parameters.ParameterGuard(
            self, is_configured=lambda: self._session is not None or self._model.is_loading
        )
        self._requests = Services(
            self, self._session_or_reason, self._current_parameters, lambda: self._watch is not None, self._show_markers
        )
        self._full_name = self.get_fully_qualified_name()
        self._idle = IdleWatch(self)
        graph = GraphWatch(self, self._image_topics)
        self._reporter = DiagnosticsReporter(self._full_name.strip("/"), self._current_parameters, graph.look)
        self._transitions = TransitionServer(self, self._prepare)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock runs without /clock. The timer also wakes the executor, which could sleep through a SIGTERM.
        self._heartbeat = self.create_timer(HEARTBEAT_S, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Lifecycle -------------------------------------------------------------------------------------------------------

    @logs_exceptions
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            parameters = ros_parameters.read(self)
        except ParameterError as error:
            return self._fail_to_configure(f"bad parameter: {error}")
        try:
            loaded = self._model.take(parameters)
        except Exception as error:  # whatever the loader raises: a missing file, wrong keys, no such device
            if self.context.ok():
                wanted = describe_model(parameters)
                return self._fail_to_configure(f"could not load {wanted}: {type(error).__name__}: {error}")
        if not self.context.ok():  # Ctrl-C while the model was loading
            return TransitionCallbackReturn.FAILURE
        self._depth.forget()
        self._outputs = Publishers(self, self._current_parameters, self._depth, self._transforms)
        self._events = EventPublisher(self)
        self._stopped = None
        self._session = Session(
            loaded.tracker,
            decode=lambda message: decode_image(message, self._guard.current.max_image_pixels),
            publish=self._publish,
            notify=self._on_event,
            parameters=self._current_parameters,
            model_thread=self._model.thread,
            now_ns=lambda: self.get_clock().now().nanoseconds,
        )
        self._session.start()
        self.trouble = ""
        if parameters.weights == "random":
            self.get_logger().warning("weights is 'random': the masks will mean nothing")
        self.get_logger().info(f"configured: {loaded.tracker.model_name}, warmed up in {loaded.warm_up_s:.1f} s")
        return super().on_configure(state)

    @logs_exceptions
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._session is not None and self._outputs is not None, "only a configured node can be activated"
        self._watch = TopicMonitor()
        parameters = self._guard.current
        pairing = ImagePairing(self._depth.put_pair, self._current_parameters) if parameters.use_depth else None
        self._outputs.show_markers(True)
        outputs = self._outputs
        self._inputs = Subscriptions(
            self, self._session, self._watch, self._current_parameters, lambda: outputs.overlay_ns, self._depth, pairing
        )
        self._spatial_inputs = SpatialSubscriptions(
            self, self._session, self._depth, self._transforms, parameters, self._inputs.click, pairing
        )
        self._detections = make_detection_subscription(self, self._session, self._current_parameters)
        image, prompt, click = self._inputs.topic_names()
        detections = f", detections from {self._detections.topic_name}" if self._detections is not None else ""
        self.get_logger().info(
            f"active: {describe_model(parameters)} tracks in {image} ({parameters.image_reliability}); "
            f"prompts from {prompt}, clicks from {click} ({parameters.click_mode}){detections}; "
            f"in space by {', '.join(self._spatial_inputs.topic_names())}; "
            f"publishes {', '.join(self._outputs.topic_names())}; "
            f"services {', '.join(self._requests.names())}"
        )
        return super().on_activate(state)

    @logs_exceptions
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._unsubscribe()
        if self._session is not None:
            self._show_markers(False)
            self._session.forget_images()  # or they would be processed as if they were new, once active again
        return super().on_deactivate(state)

    @logs_exceptions
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    @logs_exceptions
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.get_logger().error(f"a transition from {state.label!r} failed: the node is cleaned up")
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @property
    def starts_by_itself(self) -> bool:
        """Whether ``autostart`` is true; said when it is not."""
        if not self._guard.current.autostart:
            self.get_logger().info("waiting to be configured (autostart is false)")
        return self._guard.current.autostart

    def autostart(self) -> None:
        """``start`` for one node that no executor runs yet: returns when the node is active, or cannot be."""
        if self.starts_by_itself and self.trigger_configure() == OK and self.context.ok():
            self.trigger_activate()

    async def configure(self) -> bool:
        """Configure without holding the executor up; whether it could be. Failures have been logged."""
        return await self._transitions.configure() == OK

    def close(self) -> None:
        """End the session. To be called before ``destroy_node``."""
        self.left_behind |= self._model.is_loading
        self._release()
        self._log_handler.remove()

    def destroy_node(self) -> None:
        super().destroy_node()
        break_reference_cycle(self)

    async def _prepare(self, transition: int) -> None:
        """The slow part of a transition: the executor runs other callbacks, and ``on_...`` finds it done."""
        if transition == CONFIGURE:
            with suppress(ParameterError):  # on_configure says so
                await self._model.load(ros_parameters.read(self))
            return
        self._unsubscribe()
        session = self._session
        if session is not None:
            stopping = in_thread(lambda: session.stop(STOP_LIMIT_S))
            await done_within(self, stopping, 2 * STOP_LIMIT_S)
            self._stopped = stopping.done() and stopping.result()

    def _fail_to_configure(self, reason: str) -> TransitionCallbackReturn:
        self.trouble = f"not configured: {reason}"
        self.get_logger().error(f"{reason}. Correct the parameters and configure again")
        return TransitionCallbackReturn.FAILURE

    def _unsubscribe(self) -> None:
        for inputs in (self._inputs, self._spatial_inputs, self._detections):
            if inputs is not None:
                inputs.destroy()
        self._inputs = self._spatial_inputs = self._detections = self._watch = None

    def _release(self) -> None:
        self._unsubscribe()
        if self._session is not None and self._stopped is None:
            self._stopped = self._session.stop(STOP_LIMIT_S if self.context.ok() else ENDING_LIMIT_S)
        if self._session is not None and not self._stopped:
            self.left_behind = True
            self._model.leave_thread()
            if self.context.ok():
                self.get_logger().error("the model is still busy with an image; its thread is left behind")
            else:  # Ctrl-C in the middle of an image: nothing is wrong with that
                self.get_logger().info("ended while the model was busy with an image")
        if self._outputs is not None:
            self._outputs.destroy()
        if self._events is not None:
            self._events.destroy()
        self._session = self._outputs = self._events = None

    # What the parts call -------------------------------------------------------------------------------------------

    def _current_parameters(self) -> NodeParameters:
        return self._guard.current

    def _image_topics(self) -> list[str]:
        """Topics that should have one publisher, while they are subscribed to."""
        if self._inputs is None or self._spatial_inputs is None:
            return []
        return [self._inputs.topic_names()[0], *self._spatial_inputs.image_topics()]

    def _show_markers(self, shown: bool) -> None:
        if self._outputs is not None:
            self._outputs.show_markers(shown)

    def _waiting_ns(self) -> Collection[int]:
        return self._session.waiting_ns if self._session is not None else ()

    def _publish(self, view: TrackingView) -> None:
        """Runs on the session's publishing thread."""
        outputs, detections = self._outputs, self._detections
        if outputs is not None:
            outputs.publish(view)
        if detections is not None:
            detections.observe(view)

    def _on_event(self, event: Event) -> None:
        if event.type is EventType.RESET:  # before the event is published
            if event.time_went_back:  # depth images show the jump by their own stamps
                self._transforms.forget()
                detections = self._detections
                if detections is not None:
                    detections.forget()
            else:
                self._depth.forget()
        events = self._events
        if events is not None:
            events.put(event)

    def _session_or_reason(self) -> Session | str:
        if self._model.is_loading or (self._session is None and self._transitions.is_pending):
            return MODEL_IS_LOADING
        return self._session or self.trouble or f"not configured: ros2 lifecycle set {self._full_name} configure"

    def _beat(self) -> None:
        if self._spatial_inputs is not None:
            self._spatial_inputs.prepare()
        timeout_s = self._guard.current.image_timeout_s
        silent = self._watch is not None and self._watch.silent_s >= timeout_s
        if self._watch is not None:
            advice = self._watch.diagnose(timeout_s, lambda: inspect_image_topic(self, self._guard.current))
            if advice:
                self.get_logger().warning(advice)
        state = "active" if self._watch is not None else "inactive" if self._session is not None else "unconfigured"
        if self._model.is_loading:
            state = "loading the model"
        if not self.trouble and not self._model.is_loading:  # else the log has its reason already
            topic = image_topic_names(self)[self._guard.current.image_transport]
            self._idle.look(state, topic, timeout_s)
        missed, depth = self._watch.missed if self._watch is not None else 0, self._depth.trouble
        status = self._reporter.report(
            self._session, state=state, trouble=self.trouble, silent=silent, depth_trouble=depth, missed=missed
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def make_nodes(context: Context | None = None) -> list[Sam2Node]:
    """The nodes that the process' arguments ask for: one, or one for each of ``cameras``, which share the weights.

    Raises:
        ParameterError: ``cameras`` cannot be used.
    """
    namespace, text = ros_parameters.read_arguments(context)
    names = camera_names(text)
    if not names:
        return [Sam2Node(context=context)]
    load = functools.partial(load_configured_tracker, networks=SharedNetworks())
    model_thread = TaskThread()
    return [
        # As arguments: the process' own (__ns) override the constructor's namespace, and these override those.
        Sam2Node(
            tracker_factory=load,
            model_thread=model_thread,
            context=context,
            cli_args=["--ros-args", "-r", f"__ns:={namespace.rstrip('/')}/{name}"],
        )
        for name in names
    ]


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM. Exit status 0, or 1 when it could not be made."""
    keep_heap()
    # rclpy's handler shuts the context down and then calls this one. Python's default handler would raise
    # KeyboardInterrupt anywhere, and under launch Ctrl-C arrives twice.
    signal.signal(signal.SIGINT, lambda *_: None)
    if not ros_parameters.init_ros(args):
        return 1
    nodes: list[Sam2Node] = []
    try:
        _run(nodes)
    except (ParameterException, ParameterError) as error:
        rclpy.logging.get_logger("sam2_node").fatal(f"bad parameter: {error}")
        return 1
    except Exception:
        if rclpy.ok():
            raise
        # After a signal every call into the middleware raises, also within a transition: not an error.
    finally:
        rclpy.try_shutdown()
    if any(node.left_behind for node in nodes):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # normal exit stops such a thread inside native code, which aborts the process
    return 0


def _run(nodes: list[Sam2Node]) -> None:
    """All nodes from start to end, in the default context; ``nodes`` is filled with them."""
    nodes += make_nodes()
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    try:
        executor.create_task(start, nodes)
        executor.spin()
    finally:
        for node in nodes:
            node.close()
        executor.shutdown()
        for node in nodes:
            node.destroy_node()


if __name__ == "__main__":
    raise SystemExit(main())
