"""What a video is, from as few bytes as possible: streams, metadata, key frames."""
