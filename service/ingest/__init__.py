"""Brings in the bytes of videos: an upload or a URI becomes one seekable file."""
