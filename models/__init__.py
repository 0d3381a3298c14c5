"""Video models in torch: specifications, families, imported checkpoints, training. See README.md."""
