"""Errors that a user can fix: a sentence on standard error, an exit status, with ``--json`` an object."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from tubelet.service.cli.runs.interruption import INTERRUPTED
from tubelet.service.config.problems import BadConfig
from tubelet.service.types.token import BadToken

_errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

_BROKEN_PIPE_STATUS = 128 + signal.SIGPIPE  # as shells report a process that SIGPIPE killed

ErrorRow = tuple[type[Exception], str, str, int]
"""An error class, its code and reason (named as a server's errors are), and the command's exit status."""


@contextmanager
def report_errors(*, as_json: bool = False, say: Callable[[str], None] = _errors.print) -> Iterator[None]:
    """Print an error that the user can fix, or Ctrl-C, as one sentence and exit; let any other error raise.

    ``say`` prints the sentence. With ``as_json``, print an object on standard output, too.
    """
    try:
        yield
        if sys.stdout is not None:  # None: the caller closed it
            sys.stdout.flush()
    except typer.Exit:
        raise
    except BrokenPipeError:  # the reader has gone, as with ``| head -1``
        _discard_output()
        raise typer.Exit(_BROKEN_PIPE_STATUS) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        described, status = _describe(error)
        if not status:
            raise
        for sentence in _sentences(error):
            say(sentence)
        if as_json:
            try:
                print(json.dumps({"error": described}), flush=True)
            except OSError:  # standard output is what failed
                _discard_output()
        raise typer.Exit(status) from None


def _discard_output() -> None:
    """Redirect standard output to the null device; otherwise Python would fail to flush it at exit."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _sentences(error: Exception) -> tuple[str, ...]:
    """Return the sentences to print for the error; a wrong configuration has one for each problem."""
    from tubelet.service.client import ServerError
    from tubelet.service.wire.status import mention_of

    if isinstance(error, BadConfig):
        return tuple(f"configuration: {problem}" for problem in error.problems)
    if isinstance(error, ServerError) and error.reason:
        return (error.message + mention_of(error.request_id, error.message),)
    return (str(error),)


def _describe(error: Exception) -> tuple[dict[str, str], int]:
    """Return the JSON object and the exit status for an error; status 0: users cannot fix it."""
    from tubelet.service.client import ServerError
    from tubelet.service.errors import TubeletError

    if isinstance(error, ServerError):
        described = {"code": error.code, "reason": error.reason, "message": error.message}
        return described | ({"request_id": error.request_id} if error.request_id else {}), 1
    if isinstance(error, TubeletError):
        return {"code": error.code.name, "reason": error.reason, "message": error.message}, 1
    for kind, code, reason, status in user_errors():
        if isinstance(error, kind):
            return {"code": code, "reason": reason, "message": str(error)}, status
    return {}, 0


def user_errors() -> Iterator[ErrorRow]:
    """Yield the errors that users can fix, those that are quick to import first."""
    yield BadConfig, "INVALID_ARGUMENT", "INVALID_CONFIGURATION", 2
    yield BadToken, "INVALID_ARGUMENT", "BAD_TOKEN", 2
    yield OSError, "FAILED_PRECONDITION", "SYSTEM_ERROR", 1

    from tubelet.service.cli.evaluation.comparison import InvalidComparison
    from tubelet.service.cli.evaluation.dataset import InvalidDataset
    from tubelet.service.cli.evaluation.evaluate import AllVideosFailed, EvaluationAborted
    from tubelet.service.cli.runs.results_log import ResultsInUse, ResultsMismatch

    yield InvalidDataset, "INVALID_ARGUMENT", "INVALID_DATASET", 2
    yield InvalidComparison, "INVALID_ARGUMENT", "INVALID_COMPARISON", 2
    yield ResultsMismatch, "FAILED_PRECONDITION", "RESULTS_MISMATCH", 2
    yield ResultsInUse, "FAILED_PRECONDITION", "RESULTS_IN_USE", 2
    yield EvaluationAborted, "ABORTED", "EVALUATION_ABORTED", 2
    yield AllVideosFailed, "FAILED_PRECONDITION", "ALL_VIDEOS_FAILED", 1

    from tubelet.models.errors import (
        BrokenModel,
        CannotExport,
        CannotImport,
        CannotRemove,
        CannotTrain,
        MissingExtra,
        TrainingInterrupted,
        UnknownModel,
        UnsupportedPrecision,
    )
    from tubelet.service.engine.model_loader import NoSuchDevice
    from tubelet.service.server.model_manager import MissingModels
    from tubelet.service.server.process import NoDeviceLeft

    yield UnknownModel, "NOT_FOUND", "UNKNOWN_MODEL", 1
    yield BrokenModel, "FAILED_PRECONDITION", "BROKEN_MODEL", 1
    yield CannotImport, "INVALID_ARGUMENT", "CANNOT_IMPORT", 1
    yield TrainingInterrupted, "ABORTED", "TRAINING_INTERRUPTED", INTERRUPTED
    yield CannotTrain, "FAILED_PRECONDITION", "CANNOT_TRAIN", 1
    yield CannotExport, "FAILED_PRECONDITION", "CANNOT_EXPORT", 1
    yield CannotRemove, "FAILED_PRECONDITION", "CANNOT_REMOVE", 1
    yield MissingExtra, "FAILED_PRECONDITION", "MISSING_EXTRA", 1
    for kind in (MissingModels, NoSuchDevice, UnsupportedPrecision):
        yield kind, "INVALID_ARGUMENT", "INVALID_CONFIGURATION", 1
    yield NoDeviceLeft, "UNAVAILABLE", "NO_DEVICE", 1

    from tubelet.service.batch.destination.commit_log import ShardTaken
    from tubelet.service.batch.destination.layout import DestinationMismatch
    from tubelet.service.batch.destination.lock import ShardInUse
    from tubelet.service.batch.destination.store import UnusableDestination
    from tubelet.service.batch.outage import SourceOutage
    from tubelet.service.batch.ray.errors import ActorFailed, ClusterUnreachable
    from tubelet.service.batch.source.items import UnusableSource
    from tubelet.service.cli.batch.batch import NotResumed
    from tubelet.service.errors import MalformedOption, NoDevice

    yield UnusableSource, "INVALID_ARGUMENT", "INVALID_SOURCE", 2
    yield NotResumed, "FAILED_PRECONDITION", "NOT_RESUMED", 2
    yield DestinationMismatch, "FAILED_PRECONDITION", "DESTINATION_MISMATCH", 2
    yield UnusableDestination, "INVALID_ARGUMENT", "INVALID_DESTINATION", 2
    yield SourceOutage, "UNAVAILABLE", "SOURCE_OUTAGE", 1
    yield ClusterUnreachable, "UNAVAILABLE", "CLUSTER_UNREACHABLE", 1
    yield ActorFailed, "UNAVAILABLE", "ACTOR_FAILED", 1
    yield ShardInUse, "FAILED_PRECONDITION", "SHARD_IN_USE", 1
    yield ShardTaken, "ABORTED", "SHARD_TAKEN", 1
    yield MalformedOption, "INVALID_ARGUMENT", "MALFORMED_OPTION", 2
    yield NoDevice, "UNAVAILABLE", "NO_DEVICE", 1
