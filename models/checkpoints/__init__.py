"""Import checkpoints of other projects: read them, and rename their parameters to tubelet's."""
