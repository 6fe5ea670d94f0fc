"""Use cases `attention` and `inspect`: what the network saw, as figures."""
