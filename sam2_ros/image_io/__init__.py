"""Raw and compressed images of ROS messages as numpy arrays, and back. No ROS: any object with the fields will do."""
