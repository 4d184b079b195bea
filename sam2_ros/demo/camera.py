"""The demo's camera driver: publishes ``image``, ``camera_info`` and ``depth`` as a real one would.

It first shows its first frame over and over, until somebody calls ``~/start``; then every frame once, at its rate.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from sam2_ros.data.files.video import SourceError
from sam2_ros.demo.stream import (
    CameraStream,
    Prefetcher,
    StreamFrame,
    StreamInfo,
    add_stream_options,
    stamp_with_index,
    stream_spec,
)
from sam2_ros.node.conversions import array_to_image, ns_to_stamp

FRAME_ID = "camera_color_optical_frame"
PROGRESS_EVERY_S = 2.0
# The last messages are still in transit when the stream ends.
LINGER_S = 0.5
RATE_PARAMETER = "rate_hz"
RATE_RANGE = [FloatingPointRange(from_value=0.1, to_value=1000.0)]
WAITING_RATE_HZ = 8.0  # until the client has found a better one


class DemoCamera(Node):
    """The driver's ROS side: publishers, and the service that lets the stream run."""

    def __init__(self, info: StreamInfo, *, rate_hz: float = WAITING_RATE_HZ, **node_options: Any) -> None:
        super().__init__("demo_camera", **node_options)
        self.declare_parameter(
            RATE_PARAMETER,
            rate_hz,
            ParameterDescriptor(description="Images per second.", floating_point_range=RATE_RANGE),
        )
        self.started = False
        self._info = info
        self._image = self.create_publisher(Image, "image", qos_profile_sensor_data)
        self._depth = self.create_publisher(Image, "depth", qos_profile_sensor_data)
        self._camera_info = self.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        self.create_service(Trigger, "~/start", self._start)

    @property
    def rate_hz(self) -> float:
        """Images per second; the parameter may change at any time."""
        return float(self.get_parameter(RATE_PARAMETER).value)

    def publish(self, frame: StreamFrame, index: int) -> None:
        """Send one frame as number ``index``, stamped now. Depth is made only for somebody who wants it."""
        now_ns = self.get_clock().now().nanoseconds
        header = Header(stamp=ns_to_stamp(stamp_with_index(now_ns, index)), frame_id=FRAME_ID)
        self._image.publish(array_to_image(frame.image_rgb, "rgb8", header))
        if frame.depth_mm is not None and self._depth.get_subscription_count():
            self._depth.publish(array_to_image(frame.depth_mm, "16UC1", header))
        if self._camera_info.get_subscription_count():
            self._camera_info.publish(self._calibration(frame, header))

    def _calibration(self, frame: StreamFrame, header: Header) -> CameraInfo:
        """All zeros where the camera is not calibrated, as CameraInfo asks for."""
        height_px, width_px = frame.image_rgb.shape[:2]
        message = CameraInfo(header=header, height=height_px, width=width_px)
        matrix = self._info.camera_matrix
        if matrix is not None:
            message.distortion_model = "plumb_bob"
            message.d = [0.0] * 5
            message.k = matrix.ravel().tolist()
            message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
            message.p = [*matrix[0], 0.0, *matrix[1], 0.0, *matrix[2], 0.0]
        return message

    def _start(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = not self.started
        response.message = "the stream is already running" if self.started else f"{self._info.name} starts"
        self.started = True
        return response


def show(camera: DemoCamera, executor: SingleThreadedExecutor, ahead: Prefetcher, *, start_timeout_s: float) -> int:
    """Publish the stream; the number of frames that were published after the start.

    Raises:
        SourceError: the source cannot be read, or is empty.
        TimeoutError: nobody called ``~/start``.
    """
    take = ahead.newest if ahead.info.live else ahead.take
    frame = take()
    if frame is None:
        raise SourceError(f"{ahead.info.name} has no frames")
    deadline_s = time.monotonic() + start_timeout_s
    next_s = time.monotonic()
    published = 0
    while frame is not None:
        while (left_s := next_s - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left_s)
        executor.spin_once(timeout_sec=0)
        # Late frames are shown late, not in a burst: this is a camera.
        next_s = max(next_s + 1 / camera.rate_hz, time.monotonic())
        running = camera.started
        camera.publish(frame, published)
        if running:
            published += 1
        elif time.monotonic() > deadline_s:
            raise TimeoutError(f"nobody called {camera.get_name()}/start within {start_timeout_s:.0f} s")
        if running or ahead.info.live:
            frame = take()
        if ahead.info.frame_count is not None and published >= ahead.info.frame_count:
            break
    end_s = time.monotonic() + LINGER_S
    while (left_s := end_s - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left_s)
    return published


def make_ahead(spec_stream: CameraStream) -> Prefetcher:
    """Make what fits into memory before anything is shown, saying how far it is."""
    ahead = Prefetcher(spec_stream)
    ahead.start()
    if ahead.info.live:
        return ahead
    total = ahead.info.frame_count
    while not ahead.ready.wait(PROGRESS_EVERY_S):
        if not rclpy.ok():
            raise ExternalShutdownException
        print(f"preparing frames: {ahead.made}" + (f" of {total}" if total else ""), flush=True)
    return ahead


def run(
    make_stream: Callable[[], CameraStream], arguments: Sequence[str], *, rate_hz: float, start_timeout_s: float
) -> int:
    """Show the stream until it is over, as the main function of a process; returns 0 on success.

    ``arguments`` may include ROS arguments.
    """
    # rclpy's signal handler shuts the context down; Python's would raise KeyboardInterrupt in the middle of a callback.
    signal.signal(signal.SIGINT, lambda *_: None)
    rclpy.init(args=list(arguments))
    executor = SingleThreadedExecutor()
    camera, ahead = None, None
    try:
        ahead = make_ahead(make_stream())
        camera = DemoCamera(ahead.info, rate_hz=rate_hz)
        executor.add_node(camera)
        print(f"showing {ahead.info.name} at {camera.rate_hz:g} Hz, waiting for the start", flush=True)
        count = show(camera, executor, ahead, start_timeout_s=start_timeout_s)
        print(f"{count} frames shown", flush=True)
        return 0
    except (SourceError, ValueError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except ExternalShutdownException:
        return 0
    finally:
        if ahead is not None:
            ahead.close()
        if camera is not None:
            camera.destroy_node()
        rclpy.try_shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the camera until its stream is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_stream_options(parser)
    parser.add_argument(
        "--start-timeout-s", type=float, default=180.0, help="give up when ~/start is not called in time"
    )
    arguments = list(sys.argv if argv is None else argv)
    args = parser.parse_args(remove_ros_args(arguments)[1:])
    return run(
        lambda: CameraStream(stream_spec(args)),
        arguments,
        rate_hz=args.rate_hz or WAITING_RATE_HZ,
        start_timeout_s=args.start_timeout_s,
    )


if __name__ == "__main__":
    sys.exit(main())
