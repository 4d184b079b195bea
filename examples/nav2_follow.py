#!/usr/bin/env python3
"""Follow an object: ``~/target_pose`` of sam2_node becomes goals for Nav2, some distance short of the object.

    python3 examples/nav2_follow.py --ros-args -r target_pose:=/sam2_node/target_pose

Needs a running Nav2 and TF between the camera's optical frame, the robot and the map. When the object is out of sight
for a while, or on Ctrl-C, the goal is cancelled and the robot stops. A goal that Nav2 gives up is sent again later.
Parameters: the fields of ``Settings``, and the two frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Settings:
    """When to send a goal, and which."""

    standoff_m: float = 1.0  # stay this far from the object
    slack_m: float = 0.3  # start when it is farther than standoff_m by this much, stop when it is closer by as much
    min_move_m: float = 0.2  # a goal closer than this to the last one is not worth a new plan
    min_period_s: float = 1.0  # between goals
    retry_after_s: float = 2.0  # when Nav2 has rejected or aborted a goal
    lost_after_s: float = 3.0  # without a pose: cancel


class Goal(NamedTuple):
    """Where to stand, in the map: facing the object."""

    x: float
    y: float
    yaw: float


def goal_before(target_xy: tuple[float, float], robot_xy: tuple[float, float], standoff_m: float) -> Goal:
    """The point ``standoff_m`` from the target on the straight line to the robot; never behind the robot."""
    dx, dy = target_xy[0] - robot_xy[0], target_xy[1] - robot_xy[1]
    distance = math.hypot(dx, dy)
    share = max(distance - standoff_m, 0.0) / distance if distance > 0 else 0.0
    return Goal(robot_xy[0] + share * dx, robot_xy[1] + share * dy, math.atan2(dy, dx))


class Follower:
    """Decides, without ROS: a new goal, no goal, or that it is time to cancel."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._moving = False
        self._last_goal: Goal | None = None
        self._sent_s = self._seen_s = self._failed_s = -math.inf

    def on_target(self, now_s: float, target_xy: tuple[float, float], robot_xy: tuple[float, float]) -> Goal | None:
        """The goal to send now that the target was seen there; None when the robot is fine with what it has."""
        settings, self._seen_s = self._settings, now_s
        distance = math.dist(target_xy, robot_xy)
        self._moving = distance > settings.standoff_m + (0.0 if self._moving else settings.slack_m)
        too_soon = now_s - self._sent_s < settings.min_period_s or now_s - self._failed_s < settings.retry_after_s
        last = self._last_goal
        met = last is not None and distance < settings.standoff_m - settings.slack_m  # the target came: stop here
        if too_soon or not (self._moving or met):
            return None
        goal = goal_before(target_xy, robot_xy, settings.standoff_m)
        if last is not None and math.dist(goal[:2], last[:2]) < settings.min_move_m:
            return None
        self._last_goal, self._sent_s = goal, now_s
        return goal

    def on_failure(self, now_s: float, goal: Goal) -> bool:
        """Nav2 has rejected or aborted this goal. True when nothing replaced it: then a later pose sends one again."""
        if goal is not self._last_goal:
            return False
        self._last_goal, self._failed_s = None, now_s
        return True

    def is_lost(self, now_s: float) -> bool:
        """True once when the target has not been seen for too long: cancel the goal."""
        if self._last_goal is None or now_s - self._seen_s < self._settings.lost_after_s:
            return False
        self._last_goal, self._moving = None, False
        return True


class Nav2:
    """The goals at Nav2, at most one of them still wanted. ``on_failure(goal)``: Nav2 has rejected or aborted it."""

    def __init__(self, node: Any, map_frame: str, on_failure: Callable[[Goal], None]) -> None:
        from nav2_msgs.action import NavigateToPose
        from rclpy.action import ActionClient

        self._request_type, self._map_frame, self._on_failure = NavigateToPose.Goal, map_frame, on_failure
        self._client = ActionClient(node, NavigateToPose, "navigate_to_pose")
        self._wanted: Goal | None = None
        self._handle: Any = None  # of the wanted goal, once Nav2 has accepted it

    def is_ready(self) -> bool:
        return self._client.server_is_ready()

    def send(self, goal: Goal) -> None:
        """Go there; Nav2 gives up (aborts) the goal before for this one."""
        request = self._request_type()
        request.pose.header.frame_id = self._map_frame
        request.pose.pose.position.x, request.pose.pose.position.y = goal.x, goal.y
        request.pose.pose.orientation.z = math.sin(goal.yaw / 2)
        request.pose.pose.orientation.w = math.cos(goal.yaw / 2)
        self._wanted, self._handle = goal, None
        self._client.send_goal_async(request).add_done_callback(lambda answer: self._on_answer(goal, answer.result()))

    def cancel(self) -> None:
        """Stop; a goal that Nav2 has not answered yet is cancelled when it does."""
        handle, self._wanted, self._handle = self._handle, None, None
        if handle is not None:
            handle.cancel_goal_async()

    def _on_answer(self, goal: Goal, handle: Any) -> None:
        if not handle.accepted:
            self._on_failure(goal)
            return
        handle.get_result_async().add_done_callback(lambda done: self._on_end(goal, done.result().status))
        if goal is self._wanted:
            self._handle = handle
        elif self._wanted is None:
            handle.cancel_goal_async()

    def _on_end(self, goal: Goal, status: int) -> None:
        from action_msgs.msg import GoalStatus

        if status == GoalStatus.STATUS_ABORTED:
            self._on_failure(goal)


def main() -> None:
    """The ROS side: poses in, goals out."""
    import rclpy
    import tf2_geometry_msgs  # noqa: F401  teaches tf2 to transform a PoseStamped
    import tf2_ros
    from geometry_msgs.msg import PoseStamped
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # on Ctrl-C there is still something to send
    node = rclpy.create_node("nav2_follow")
    follower = Follower(Settings(**{f.name: node.declare_parameter(f.name, f.default).value for f in fields(Settings)}))
    map_frame = node.declare_parameter("map_frame", "map").value
    robot_frame = node.declare_parameter("robot_frame", "base_link").value
    buffer = tf2_ros.Buffer()
    tf2_ros.TransformListener(buffer, node)

    def seconds() -> float:
        return node.get_clock().now().nanoseconds / 1e9

    def on_failure(goal: Goal) -> None:
        if follower.on_failure(seconds(), goal):
            node.get_logger().warning("Nav2 could not go there: trying again", throttle_duration_sec=5.0)

    def on_pose(pose: PoseStamped) -> None:
        if not nav2.is_ready():
            node.get_logger().warning("Nav2's navigate_to_pose is not there", throttle_duration_sec=5.0)
            return
        try:
            target = buffer.transform(pose, map_frame).pose.position  # as of the image's stamp: the robot has moved on
            robot = buffer.lookup_transform(map_frame, robot_frame, rclpy.time.Time()).transform.translation
        except tf2_ros.TransformException as error:
            node.get_logger().warning(f"no goal without TF: {error}", throttle_duration_sec=5.0)
            return
        goal = follower.on_target(seconds(), (target.x, target.y), (robot.x, robot.y))
        if goal is not None:
            nav2.send(goal)

    def on_timer() -> None:
        if follower.is_lost(seconds()):
            node.get_logger().info("the target is out of sight: stopping")
            nav2.cancel()

    nav2 = Nav2(node, map_frame, on_failure)
    poses = node.create_subscription(PoseStamped, "target_pose", on_pose, 1)
    node.create_timer(0.2, on_timer)
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        node.destroy_subscription(poses)  # or the next one would send a goal
        nav2.cancel()
        end_s = time.monotonic() + 1.0
        while time.monotonic() < end_s:  # Nav2 may have yet to answer, and TF has its turns too
            rclpy.spin_once(node, timeout_sec=0.1)


if __name__ == "__main__":
    main()
