"""Chosen frames of a video, in order, as units of a plan."""
