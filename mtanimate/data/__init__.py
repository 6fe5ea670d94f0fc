"""Data sets: folders of videos, pairs of frames, augmentation."""
