"""The example's decisions, with a clock and positions of our own."""

from __future__ import annotations

import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "nav2_follow.py"
nav2_follow: dict[str, Any] = runpy.run_path(str(EXAMPLE))
goal_before, Settings = nav2_follow["goal_before"], nav2_follow["Settings"]


def follower(**settings: float) -> Any:
    return nav2_follow["Follower"](Settings(**settings))


@pytest.mark.parametrize(
    ("target", "robot", "goal"),
    [
        ((3.0, 0.0), (0.0, 0.0), (2.0, 0.0, 0.0)),
        ((0.0, 5.0), (0.0, 2.0), (0.0, 4.0, math.pi / 2)),
        ((-4.0, 3.0), (0.0, 0.0), (-3.2, 2.4, math.atan2(3, -4))),
        ((0.5, 0.0), (0.0, 0.0), (0.0, 0.0, 0.0)),  # too close: turn to it, do not back away
        ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0, 0.0)),
    ],
)
def test_the_goal_is_a_metre_short_and_faces_the_target(target: Any, robot: Any, goal: Any) -> None:
    assert goal_before(target, robot, 1.0) == pytest.approx(goal)


def test_goals_are_neither_frequent_nor_alike() -> None:
    decide = follower(min_period_s=1.0, min_move_m=0.2)
    assert decide.on_target(0.0, (5.0, 0.0), (0.0, 0.0)) is not None
    assert decide.on_target(0.5, (6.0, 0.0), (0.0, 0.0)) is None, "half a second later"
    assert decide.on_target(1.5, (5.1, 0.0), (0.5, 0.0)) is None, "the same place but for 10 cm"
    assert decide.on_target(1.6, (6.0, 0.0), (0.5, 0.0)) == pytest.approx((5.0, 0.0, 0.0))


def test_once_there_it_waits_for_the_target_to_leave() -> None:
    decide = follower(standoff_m=1.0, slack_m=0.3, min_period_s=0.0, min_move_m=0.0)
    assert decide.on_target(0.0, (1.2, 0.0), (0.0, 0.0)) is None, "within the slack from the start"
    assert decide.on_target(1.0, (1.4, 0.0), (0.0, 0.0)) is not None
    assert decide.on_target(2.0, (1.4, 0.0), (0.3, 0.0)) is not None, "on its way it goes on to the standoff"
    assert decide.on_target(3.0, (1.4, 0.0), (0.4, 0.0)) is None, "there"
    assert decide.on_target(4.0, (1.6, 0.0), (0.4, 0.0)) is None, "the target fidgets"
    assert decide.on_target(5.0, (1.8, 0.0), (0.4, 0.0)) is not None


def test_it_stops_where_it_is_when_the_target_comes_to_meet_it() -> None:
    decide = follower(standoff_m=1.0, slack_m=0.3)
    assert decide.on_target(0.0, (4.0, 0.0), (0.0, 0.0)) == pytest.approx((3.0, 0.0, 0.0))
    assert decide.on_target(2.0, (1.8, 0.0), (1.0, 0.0)) is None, "closer than the standoff, within the slack"
    assert decide.on_target(3.0, (1.6, 0.0), (1.0, 0.0)) == pytest.approx((1.0, 0.0, 0.0)), "the goal is behind it"
    assert decide.on_target(5.0, (1.2, 0.0), (1.0, 0.0)) is None, "it stands; it does not back away"


def test_a_target_out_of_sight_is_given_up_once() -> None:
    decide = follower(lost_after_s=3.0)
    assert not decide.is_lost(100.0), "nothing was sent yet"
    goal = decide.on_target(100.0, (5.0, 0.0), (0.0, 0.0))
    assert not decide.is_lost(102.9)
    assert decide.is_lost(103.0)
    assert not decide.is_lost(103.2)
    assert decide.on_target(104.0, (5.0, 0.0), (0.0, 0.0)) == goal, "seen again: the same goal is sent again"


def test_a_goal_that_nav2_gives_up_is_sent_again_after_a_while() -> None:
    decide = follower(retry_after_s=2.0, min_period_s=1.0)
    goal = decide.on_target(0.0, (5.0, 0.0), (0.0, 0.0))
    assert decide.on_target(1.5, (5.0, 0.0), (0.0, 0.0)) is None, "Nav2 is on its way"
    assert decide.on_failure(1.6, goal)
    assert decide.on_target(3.5, (5.0, 0.0), (0.0, 0.0)) is None, "it would only fail again"
    assert decide.on_target(3.6, (5.0, 0.0), (0.0, 0.0)) == goal


def test_a_goal_that_a_later_one_has_replaced_does_not_count_as_failed() -> None:
    decide = follower()
    first = decide.on_target(0.0, (5.0, 0.0), (0.0, 0.0))
    second = decide.on_target(2.0, (7.0, 0.0), (0.0, 0.0))
    assert not decide.on_failure(2.1, first), "Nav2 aborts what it was doing for the new goal"
    assert decide.on_target(5.0, (7.0, 0.0), (0.0, 0.0)) is None, "the second goes on"
    assert decide.on_failure(5.1, second)


class StandIn:
    """rclpy, TF and Nav2's action as far as the example uses them; ``run`` is what happens while it spins."""

    def __init__(self, run: Callable[[StandIn], None]) -> None:
        self.now_s, self.goals, self._run = 0.0, [], run
        self.cancelled: list[float] = []
        self.turns = 0  # after Ctrl-C; at the hundredth one Nav2 answers
        self.accepts, self.answers_at_once = True, True
        self.answer: Callable[[], None] = lambda: None  # to the latest goal
        self.result: Callable[[Any], None] = lambda done: None  # of the latest goal
        self._on_pose: Callable[[Any], None] = lambda pose: None
        self._on_timer: Callable[[], None] = lambda: None
        self.node = SimpleNamespace(
            declare_parameter=lambda name, default: SimpleNamespace(value=default),
            get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=round(self.now_s * 1e9))),
            get_logger=lambda: SimpleNamespace(warning=lambda *_, **__: None, info=lambda *_: None),
            create_subscription=self._subscribe,
            destroy_subscription=lambda _: setattr(self, "_on_pose", lambda pose: None),
            create_timer=lambda period_s, callback: setattr(self, "_on_timer", callback),
        )

    def modules(self) -> dict[str, Any]:
        at_2_m = SimpleNamespace(translation=SimpleNamespace(x=2.0, y=0.0))
        buffer = SimpleNamespace(
            transform=lambda pose, frame: pose, lookup_transform=lambda *_: SimpleNamespace(transform=at_2_m)
        )
        navigator = SimpleNamespace(server_is_ready=lambda: True, send_goal_async=self._send)
        time = SimpleNamespace(Time=lambda: None)
        return {
            "rclpy": SimpleNamespace(
                init=lambda **_: None,
                spin_once=self._turn,
                create_node=lambda name: self.node,
                spin=lambda node: self._run(self),
                time=time,
            ),
            "rclpy.signals": SimpleNamespace(SignalHandlerOptions=SimpleNamespace(NO=0)),
            "rclpy.action": SimpleNamespace(ActionClient=lambda *_: navigator),
            "tf2_geometry_msgs": SimpleNamespace(),
            "tf2_ros": SimpleNamespace(
                Buffer=lambda: buffer, TransformListener=lambda *_: None, TransformException=RuntimeError
            ),
            "nav2_msgs": SimpleNamespace(),
            "nav2_msgs.action": SimpleNamespace(NavigateToPose=SimpleNamespace(Goal=an_empty_goal)),
        }

    def see(self, now_s: float, x: float) -> int:
        """The target is seen there; how many goals were sent until now."""
        self.now_s = now_s
        self._on_pose(SimpleNamespace(pose=SimpleNamespace(position=SimpleNamespace(x=x, y=0.0))))
        return len(self.goals)

    def tick(self, now_s: float) -> list[float]:
        """The node's timer; the goals that were cancelled until now."""
        self.now_s = now_s
        self._on_timer()
        return list(self.cancelled)

    def end(self, status: int) -> None:
        """Nav2 is done with the latest goal."""
        self.result(SimpleNamespace(result=lambda: SimpleNamespace(status=status)))

    def _turn(self, node: Any, timeout_sec: float) -> None:
        """TF takes most turns, and the target goes on moving."""
        self.turns += 1
        self.see(self.now_s + 2.0, x=6.0 + self.turns)
        if self.turns == 100:
            self.answer()

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], depth: int) -> None:
        self._on_pose = callback

    def _send(self, goal: Any) -> Any:
        x = goal.pose.pose.position.x
        self.goals.append(x)
        on_end = SimpleNamespace(add_done_callback=lambda callback: setattr(self, "result", callback))
        handle = SimpleNamespace(
            accepted=self.accepts, get_result_async=lambda: on_end, cancel_goal_async=lambda: self.cancelled.append(x)
        )
        return SimpleNamespace(add_done_callback=lambda callback: self._answer_with(handle, callback))

    def _answer_with(self, handle: Any, callback: Callable[[Any], None]) -> None:
        self.answer = lambda: callback(SimpleNamespace(result=lambda: handle))
        if self.answers_at_once:
            self.answer()


def an_empty_goal() -> Any:
    pose = SimpleNamespace(position=SimpleNamespace(), orientation=SimpleNamespace())
    return SimpleNamespace(pose=SimpleNamespace(header=SimpleNamespace(), pose=pose))


def play(monkeypatch: pytest.MonkeyPatch, scene: Callable[[StandIn], None]) -> StandIn:
    """The example's main, with this scene in place of a robot."""
    stand_in = StandIn(scene)
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    nav2_follow["main"]()
    return stand_in


@pytest.mark.parametrize("accepted", [True, False], ids=["aborted", "rejected"])
def test_nav2_is_asked_again_when_it_gave_up(monkeypatch: pytest.MonkeyPatch, accepted: bool) -> None:
    from action_msgs.msg import GoalStatus

    sent: list[int] = []

    def scene(ros: StandIn) -> None:
        ros.accepts = accepted
        sent.append(ros.see(10.0, x=6.0))
        if accepted:
            ros.end(GoalStatus.STATUS_ABORTED)
        sent.append(ros.see(11.5, x=6.0))  # not yet
        ros.accepts = True
        sent.append(ros.see(12.5, x=6.0))
        ros.end(GoalStatus.STATUS_SUCCEEDED)
        sent.append(ros.see(20.0, x=6.0))

    assert play(monkeypatch, scene).goals == [5.0, 5.0]
    assert sent == [1, 1, 2, 2]


def test_the_robot_stops_when_the_target_is_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[list[float]] = []

    def scene(ros: StandIn) -> None:
        cancelled.append(ros.tick(9.0))  # nothing was sent yet
        ros.see(10.0, x=6.0)
        cancelled.extend(ros.tick(now_s) for now_s in (12.9, 13.1, 20.0))

    play(monkeypatch, scene)
    assert cancelled == [[], [], [5.0], [5.0]], "once, 3 s after the last pose"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_goal_that_nav2_accepts_after_it_was_called_off_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    def scene(ros: StandIn) -> None:
        ros.answers_at_once = False
        ros.see(10.0, x=6.0)
        answer = ros.answer
        assert ros.tick(13.1) == [], "there is nothing to cancel yet"
        if replaced:
            ros.see(14.0, x=8.0)
        answer()

    stand_in = play(monkeypatch, scene)
    assert stand_in.cancelled == ([] if replaced else [5.0]), "Nav2 itself gives a goal up for a later one"


@pytest.mark.parametrize("answers_at_once", [True, False])
def test_the_robot_stops_on_ctrl_c(monkeypatch: pytest.MonkeyPatch, answers_at_once: bool) -> None:
    def scene(ros: StandIn) -> None:
        ros.answers_at_once = answers_at_once
        ros.see(10.0, x=6.0)
        raise KeyboardInterrupt

    stand_in = play(monkeypatch, scene)
    assert stand_in.cancelled[0] == 5.0 and stand_in.goals == [5.0]


def test_the_goal_that_is_cancelled_is_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    def scene(ros: StandIn) -> None:
        ros.see(10.0, x=6.0)
        ros.see(12.0, x=8.0)
        ros.tick(15.1)

    assert play(monkeypatch, scene).cancelled == [7.0]


def test_it_is_short_enough_to_read() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 200
