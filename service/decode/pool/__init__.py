"""The parent's side of decoding: worker processes, their limits, and the sessions that use them."""
