"""The rendered tabletop: a seeded scene with exact masks, depth and calibration. No ROS."""

from .scene import Tabletop

__all__ = ["Tabletop"]
