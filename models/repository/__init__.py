"""Models on disk: their folders, and the stores that hold these."""
