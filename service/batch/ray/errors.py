"""Errors of a batch on Ray; they need no Ray to be imported."""


class ClusterUnreachable(Exception):
    """There is no Ray cluster at the address."""


class ActorFailed(Exception):
    """An actor cannot start, or actors can classify no further video."""
