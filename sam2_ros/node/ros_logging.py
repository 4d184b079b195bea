"""The core logs with the standard library; here its records become lines of the node's ROS logger."""

from __future__ import annotations

import logging
from typing import Any

PACKAGE_LOGGER = "sam2_ros"


class RosLogHandler(logging.Handler):
    """Forwards records to an rclpy logger. ``install`` and ``remove`` belong together.

    Of several nodes in a process the first one speaks for the core.
    """

    def __init__(self, ros_logger: Any) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(message)s"))  # the traceback, if any, follows the message
        self._ros_logger = ros_logger
        self._level_before = logging.NOTSET

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy wants one line of code per severity: it rejects a severity that changes at the same call site.
        if record.levelno >= logging.CRITICAL:
            self._ros_logger.fatal(text)
        elif record.levelno >= logging.ERROR:
            self._ros_logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._ros_logger.warning(text)
        else:
            self._ros_logger.info(text)

    def install(self) -> None:
        package = logging.getLogger(PACKAGE_LOGGER)
        if any(isinstance(handler, RosLogHandler) for handler in package.handlers):
            return
        self._level_before = package.level
        package.setLevel(logging.INFO)
        package.addHandler(self)

    def remove(self) -> None:
        package = logging.getLogger(PACKAGE_LOGGER)
        if self not in package.handlers:
            return
        package.removeHandler(self)
        package.setLevel(self._level_before)
