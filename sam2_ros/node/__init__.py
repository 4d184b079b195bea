"""The ROS 2 adapters: topics, services and parameters around a ``session``.

Only this folder and ``demo`` import ROS.
"""
