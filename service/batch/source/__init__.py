"""The videos of a batch: what SOURCE names, and who they are."""
