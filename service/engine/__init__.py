"""Units and windows of all videos in flight, batched on a device."""
