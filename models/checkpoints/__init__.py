"""Checkpoints of other projects, read and renamed to our parameters."""
