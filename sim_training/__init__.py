"""Learns SAC-AE policies in dm_control simulation; torch lives here and only here, rclpy nowhere."""
