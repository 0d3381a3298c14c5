"""Video models on torch: specifications, families, checkpoints of others, training."""
