"""The comparison of two commits by their answers: ``python -m tests.bench.golden OLD NEW``."""
