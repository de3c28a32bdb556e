"""Recordings: read them, however damaged, and score policies on them; no ROS installation needed."""
