"""Model families, one file each, built of shared layers; ``registry`` is the table of all."""
