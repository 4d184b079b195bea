"""``python -m tiny_node``: ``sam2_node`` itself, with the tests' tiny random network whatever it is asked for."""

from __future__ import annotations

import sys

from tiny_model import tiny_model

from sam2_ros.node.sam2_node import main
from sam2_ros.tracking import loading

if __name__ == "__main__":
    loading.load_network = lambda **wanted: tiny_model()
    sys.exit(main())
