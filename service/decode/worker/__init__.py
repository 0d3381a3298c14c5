"""The worker's side of decoding: fork server, sandbox, and the loop that probes and decodes videos."""
