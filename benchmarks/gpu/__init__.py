"""The phases of `on_gpu.py`, what they leave, and what travels."""
