"""Use case `eval`: reconstruction of a data set, motion between people, comparisons of checkpoints."""
