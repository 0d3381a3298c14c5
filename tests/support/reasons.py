"""The reasons of all errors that a client can get."""

from typing import get_args

from tubelet.models.errors import ExplainReason
from tubelet.service.errors import TubeletError
from tubelet.service.explanation_errors import NotExplainable

_NOT_SERVED = {"QUERY_OUT_OF_RANGE"}  # a reason of the library alone: the service has no such option


def reasons() -> frozenset[str]:
    """Return the reasons of all errors: the closed set of the ``reason`` label in the metrics."""
    found, pending = {*get_args(ExplainReason)} - _NOT_SERVED, [TubeletError]
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        if error is not NotExplainable:  # each of its errors has a reason of its own
            found.add(error.reason)
    return frozenset(found)
