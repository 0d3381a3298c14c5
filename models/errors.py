"""Libraries that only some models, or only some ways to a video, need."""


class MissingExtra(RuntimeError):
    """Something needs a library that is not installed; the message names the extra that brings it."""
