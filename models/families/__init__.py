"""Model families: one file each, on shared layers; ``registry`` is their table."""
