"""Where the rows of a batch go: parts, commits that make them count, and the lock of a shard."""
