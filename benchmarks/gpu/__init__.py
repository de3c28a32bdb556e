"""The parts of gpu_day.py: stages that run as processes of their own, what they write, and what is drawn from it."""
