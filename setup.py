"""Metadata for tools that look for it here; pip (see pyproject.toml) and colcon (see package.xml) are the ways in."""

from setuptools import setup

setup(
    name="sam2_ros",
    version="0.1.0",
    description="SAM 2 as a streaming tracker and a ROS 2 node.",
    license="Apache-2.0",
)
