#!/usr/bin/env bash
# Starts the node with the launch file's arguments.
set -eo pipefail # not -u: ROS' setup files use unset variables
source /ws/install/setup.bash
source /opt/sam2_env/bin/activate
exec ros2 launch sam2_ros sam2.launch.py "$@"
