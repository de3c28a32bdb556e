"""Simulated tasks: the dm_control suite and our own robots as Gymnasium environments, seen by camera or by state."""
