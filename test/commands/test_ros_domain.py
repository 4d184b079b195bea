"""A domain of one's own."""

from __future__ import annotations

import socket

import pytest

from sam2_ros.commands import ros_domain
from sam2_ros.commands.ros_domain import free_domain


def test_two_demos_at_once_get_different_domains() -> None:
    with free_domain() as first, free_domain() as second:
        assert first != second
        assert {first, second} <= set(range(1, 101))


def test_a_domain_in_use_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with free_domain() as mine:
        monkeypatch.setattr(ros_domain, "_DOMAINS", range(mine, mine + 1))
        with pytest.raises(RuntimeError, match=f"no free ROS_DOMAIN_ID in {mine}..{mine}"), free_domain():
            pass


def test_a_domain_in_which_a_ros_process_listens_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with free_domain() as mine:
        pass
    monkeypatch.setattr(ros_domain, "_DOMAINS", range(mine, mine + 1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("", 7400 + 250 * mine + 10))
        with pytest.raises(RuntimeError, match="name one with --domain-id"), free_domain():
            pass
