"""Checkpoints: from names to files, and from files to networks. Nothing in a checkpoint can run."""
