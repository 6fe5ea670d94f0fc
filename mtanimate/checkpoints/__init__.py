"""Names of weights -> files, and files -> networks; nothing in a checkpoint can execute anything."""
