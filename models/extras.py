"""Libraries that only some models need."""


class MissingExtra(RuntimeError):
    """A model needs a library that is not installed; the message names the extra that brings it."""
