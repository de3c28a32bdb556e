"""Camera pixels to robot commands: SAC-AE policies behind a safety gate on ROS 2."""
