"""The example's decisions, with a clock and positions of our own."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
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


def test_a_target_out_of_sight_is_given_up_once() -> None:
    decide = follower(lost_after_s=3.0)
    assert not decide.is_lost(100.0), "nothing was sent yet"
    goal = decide.on_target(100.0, (5.0, 0.0), (0.0, 0.0))
    assert not decide.is_lost(102.9)
    assert decide.is_lost(103.0)
    assert not decide.is_lost(103.2)
    assert decide.on_target(104.0, (5.0, 0.0), (0.0, 0.0)) == goal, "seen again: the same goal is sent again"


def test_it_is_short_enough_to_read() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 130
