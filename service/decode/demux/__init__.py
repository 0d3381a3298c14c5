"""Reading of containers: bytes to packets, timestamps and stream properties."""
