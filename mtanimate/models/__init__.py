"""Figure 1 of the paper, a file a box; `animator` is the whole network."""
