"""Inspection of a video before decoding: stream, metadata, key frames, from as few bytes as possible."""
