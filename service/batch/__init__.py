"""Whole corpora: videos in, rows out, each video exactly once."""
