"""Training data: clips, scenes, splits."""
