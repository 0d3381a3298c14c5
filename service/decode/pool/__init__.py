"""The server's side of decoding: worker processes, their watchdog, and the videos they get."""
