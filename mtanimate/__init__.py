"""Animate a still picture with the motion of a driving video, by the Motion Transformer (ECCV 2022)."""

__version__ = "0.1.0"
