"""What a tracker or session holds, as plain values that can be compared: equal before and after = nothing changed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def plain(value: Any) -> Any:
    """Nested tuples; arrays and tensors by type, shape and hash."""
    if isinstance(value, torch.Tensor):
        bytes_of_it = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return "tensor", str(value.dtype), tuple(value.shape), _hash(bytes_of_it)
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), value.shape, _hash(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, tuple((f.name, plain(getattr(value, f.name))) for f in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return "mapping", tuple((key, plain(each)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    return value if isinstance(value, (str, int)) else repr(value)  # NaN too equals itself


def session_snapshot(session: Any) -> Any:
    """Everything that a rejection must leave alone. The model thread must be idle."""
    return plain(
        {
            "tracker": session._tracker._state,
            "records": session._registry._records,
            "next number": session._registry._next_number,
            "frame size": session._frame_size,
            "view": session.view,
            "events": session.events._known,
            "waiting callers": len(session._waiters._waiting),
            "images": list(session._queue._images),
            "enabled": session.enabled,
        }
    )


def _hash(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
