"""The node without ROS: one tracker behind one worker, with its queue, objects, events, statistics and parameters."""
