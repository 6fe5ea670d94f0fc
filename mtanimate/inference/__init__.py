"""Everything that runs a network fast: loading, prediction, engines for CPU and GPU, other runtimes."""
