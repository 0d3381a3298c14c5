"""What went wrong, told to whoever typed the command: a sentence, an exit status, an object for machines."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from tubelet.service.config.problems import BadConfig

_errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

_NOT_READ = 128 + signal.SIGPIPE  # the exit status of what SIGPIPE ends, as shells have it

_Kind = tuple[type[Exception], str, str, int]
"""Of an error: its class, code, reason and the exit status; code and reason are named as a server's are."""


@contextmanager
def told(*, as_json: bool = False) -> Iterator[None]:
    """What a user can mend ends in a sentence on standard error and an exit status, not in a traceback.

    As JSON, an object on standard output says it, too.
    """
    try:
        yield
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
    except typer.Exit:
        raise
    except BrokenPipeError:  # nothing reads on, as with ``| head -1``
        _discard_output()
        raise typer.Exit(_NOT_READ) from None
    except Exception as error:
        said, status = _judged(error)
        if not status:
            raise
        for sentence in _sentences(error):
            _errors.print(sentence)
        if as_json:
            try:
                print(json.dumps({"error": said}), flush=True)
            except OSError:  # standard output is what failed
                _discard_output()
        raise typer.Exit(status) from None


def _discard_output() -> None:
    """Send what is still to be written nowhere, or the end of Python would fail to write it."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _sentences(error: Exception) -> tuple[str, ...]:
    from tubelet.service.client import ServerError

    if isinstance(error, BadConfig):
        return tuple(f"configuration: {problem}" for problem in error.problems)
    if isinstance(error, ServerError) and error.reason:
        return (error.message,)
    return (str(error),)


def _judged(error: Exception) -> tuple[dict[str, str], int]:
    """What a machine is told, and the exit status: 0 for what the messages are not good enough for."""
    from tubelet.service.client import ServerError

    if isinstance(error, ServerError):
        return {"code": error.code, "reason": error.reason, "message": error.message}, 1
    for kind, code, reason, status in mendable():
        if isinstance(error, kind):
            return {"code": code, "reason": reason, "message": str(error)}, status
    return {}, 0


def mendable() -> Iterator[_Kind]:
    """Errors whose messages are good enough to be the end of it; what is quick to import comes first."""
    yield BadConfig, "INVALID_ARGUMENT", "INVALID_CONFIGURATION", 2
    yield OSError, "FAILED_PRECONDITION", "SYSTEM_ERROR", 1

    from tubelet.service.cli.evaluation.dataset import BadData
    from tubelet.service.cli.evaluation.evaluate import NothingClassified, Stopped
    from tubelet.service.cli.runs.results_log import ResultsInUse, ResultsMismatch

    yield BadData, "INVALID_ARGUMENT", "INVALID_DATASET", 2
    yield ResultsMismatch, "FAILED_PRECONDITION", "RESULTS_MISMATCH", 2
    yield ResultsInUse, "FAILED_PRECONDITION", "RESULTS_IN_USE", 2
    yield Stopped, "ABORTED", "EVALUATION_ABORTED", 2
    yield NothingClassified, "FAILED_PRECONDITION", "ALL_VIDEOS_FAILED", 1

    from tubelet.models.checkpoints.foreign_checkpoint import CannotImport
    from tubelet.models.errors import MissingExtra
    from tubelet.models.repository.model_folder import BrokenModel
    from tubelet.models.repository.removal import CannotRemove
    from tubelet.models.repository.repository import UnknownModel
    from tubelet.models.runtime.precision import UnsupportedPrecision
    from tubelet.service.engine.model_loader import NoSuchDevice
    from tubelet.service.server.model_manager import NotThere
    from tubelet.service.server.process import NoDeviceLeft

    yield UnknownModel, "NOT_FOUND", "UNKNOWN_MODEL", 1
    yield BrokenModel, "FAILED_PRECONDITION", "BROKEN_MODEL", 1
    yield CannotImport, "INVALID_ARGUMENT", "CANNOT_IMPORT", 1
    yield CannotRemove, "FAILED_PRECONDITION", "CANNOT_REMOVE", 1
    yield MissingExtra, "FAILED_PRECONDITION", "MISSING_EXTRA", 1
    for kind in (NotThere, NoSuchDevice, UnsupportedPrecision):
        yield kind, "INVALID_ARGUMENT", "INVALID_CONFIGURATION", 1
    yield NoDeviceLeft, "UNAVAILABLE", "NO_DEVICE", 1
