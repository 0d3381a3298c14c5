"""What users would build instead, on the same weights: each a program that serves until SIGTERM."""
