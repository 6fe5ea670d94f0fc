"""Tensors in, uint8 pictures out."""
