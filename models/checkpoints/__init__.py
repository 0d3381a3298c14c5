"""Foreign checkpoints, one format a file: which of their names are which of ours, and why they differ."""
