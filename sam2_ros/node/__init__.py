"""The ROS 2 node. Read ``session`` first: it is the node without ROS; ``sam2_node`` wires it to topics and services."""
