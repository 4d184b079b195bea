"""SAM 2 as a streaming tracker, and as a ROS 2 node. Start at :func:`load_tracker`; for one image, at
:func:`load_image_predictor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from pkgutil import extend_path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2_ros.tracking.loading import load_image_predictor, load_tracker

__all__ = ["load_image_predictor", "load_tracker"]

# The generated `sam2_ros.msg` and `sam2_ros.srv` can lie in another folder of the same name than this file: beside an
# editable install, or when Python is started in a checkout.
__path__ = extend_path(__path__, __name__)


def _announce_pip_prefix_to_ament() -> None:
    """Let ament_index_python find a pip install: it knows only AMENT_PREFIX_PATH, which ROS' setup files set."""
    marker = Path(sys.prefix, "share", "ament_index", "resource_index", "packages", "sam2_ros")
    if not os.environ.get("AMENT_PREFIX_PATH") and marker.exists():
        os.environ["AMENT_PREFIX_PATH"] = sys.prefix


_announce_pip_prefix_to_ament()


def __getattr__(name: str) -> object:
    # Imported on first use: a client that only wants the messages should not pay for torch.
    if name in __all__:
        from sam2_ros.tracking import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
