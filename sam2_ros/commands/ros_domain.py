"""A ROS_DOMAIN_ID that nobody on this machine uses."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

# ROS' own domain_coordinator, which tests use, marks a domain as taken by holding this TCP port; so do we.
_MARKER_PORT_BASE = 32768
# Where the first participant of a domain listens (DDS-RTPS 9.6.1.1): 7400 + 250 * domain + 10.
_DDS_PORT_BASE, _DDS_PORTS_PER_DOMAIN, _DDS_UNICAST_OFFSET = 7400, 250, 10
_DOMAINS = range(1, 101)  # higher ones reach into the ports that Linux hands out to anybody


@contextlib.contextmanager
def free_domain() -> Iterator[int]:
    """Hold a domain for as long as the context lasts. Raises RuntimeError when all are taken."""
    for domain in random.sample(_DOMAINS, len(_DOMAINS)):
        with contextlib.ExitStack() as held:
            try:
                marker = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                marker.bind(("", _MARKER_PORT_BASE + domain))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("", _DDS_PORT_BASE + _DDS_PORTS_PER_DOMAIN * domain + _DDS_UNICAST_OFFSET))
            except OSError:
                continue
            yield domain
            return
    raise RuntimeError(f"no free ROS_DOMAIN_ID in {_DOMAINS.start}..{_DOMAINS.stop - 1}; name one with --domain-id")
