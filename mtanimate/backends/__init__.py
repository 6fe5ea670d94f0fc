"""Networks that were exported, at work: the graphs' names, the folder's manifest, and what runs them."""
