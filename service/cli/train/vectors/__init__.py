"""Training on a file of embeddings, without any video."""
