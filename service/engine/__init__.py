"""Batches of units and windows from all videos, computed on every device."""
