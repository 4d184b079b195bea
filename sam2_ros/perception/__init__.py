"""From masks to places: depth, camera geometry, point clouds, and boxes of a detector. No ROS."""
