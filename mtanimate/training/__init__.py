"""Use case `train`: a configuration and a folder of videos -> checkpoints."""
