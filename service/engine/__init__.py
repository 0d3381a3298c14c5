"""The engine: computes the units and windows of all videos in batches, on every device."""
