"""The worker's side of decoding: the fork server, the sandbox, and the loop that obeys the pool."""
