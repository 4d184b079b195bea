"""From masks to positions in space: depth, camera geometry, point clouds; and boxes of a detector. No ROS."""
