"""Simulated tasks: the dm_control suite and our own robots as Gymnasium pixel environments."""
