"""ROS packages that may be missing: each is reached through one module here, and without it the node does the rest."""
