"""What the launch files decide, as plain functions: nothing here needs ROS, torch or numpy, so all of it is tested."""
