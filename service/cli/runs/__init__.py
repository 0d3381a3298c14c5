"""Runs of a command over many videos: sources, classification, progress, interruption, files of results."""
