"""A checkpoint at work: loaded, made fast, and driven, on a CPU, a GPU, or by another runtime."""
