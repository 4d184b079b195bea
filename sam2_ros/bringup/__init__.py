"""The decisions of the launch files as plain functions: without ROS, torch or numpy, so that all can be tested."""
