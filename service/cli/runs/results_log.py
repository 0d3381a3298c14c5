"""Files of results, one JSON object a line, that a later run with the same settings continues.

The first line holds the settings. An incomplete last line, as a killed process leaves it, is dropped. One run
at a time writes to a file: it holds a lock, which the kernel releases when the process ends.
"""

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

T = TypeVar("T")

FINGERPRINT = "fingerprint"
"""Key of the settings whose value None says nothing: of a model that is not loaded, or in older files."""

_SETTINGS_KEYS = ("settings", "asked")  # of the first line; older evaluations have the second one
_SETTINGS_STARTS = tuple(f'{{"{key}"'.encode() for key in _SETTINGS_KEYS)


class ResultsMismatch(Exception):
    """The file holds results of other settings, or is not a file of results."""


class ResultsInUse(Exception):
    """Another run is writing to the file."""


class UnwritableResults(OSError):
    """The file cannot be written: its disk is full or read-only, or the user may not write there."""


class ResultsLog(Generic[T]):
    """An open file of results; ``done`` maps each video to ``extract`` of its last result."""

    def __init__(self, file: BinaryIO, done: dict[str, T], extract: Callable[[dict[str, Any]], T]) -> None:
        self.done = done
        self._file = file
        self._keep = extract

    def add(self, result: dict[str, Any]) -> None:
        """Append the result of ``result["video"]``.

        Raises:
            OSError: it cannot be written; no part of it is left in the file.
        """
        _append(self._file, result)
        self.done[result["video"]] = self._keep(result)


@contextmanager
def open_results(
    path: Path, settings: dict[str, Any], extract: Callable[[dict[str, Any]], T]
) -> Iterator[ResultsLog[T]]:
    """Open the results at ``path`` to continue them; a file without results gets the new settings.

    Raises:
        ResultsMismatch: the file holds results of other settings, or something else.
        ResultsInUse: another run is writing to the file.
        UnwritableResults: the file cannot be written.
        OSError: ``path`` cannot be a file, or the file cannot be read.
    """
    with _open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsInUse(
                f"another run is writing to {path}; wait for it, or name another --out"
            ) from None
        before, done, end = _read(path, extract)
        if done and before is not None:
            _check_settings(path, before, settings)
        else:
            end = 0
        try:
            file.truncate(end)
            if end == 0:
                _append(file, {"settings": settings})
        except OSError as error:
            raise UnwritableResults(f"cannot write {path}: {error.strerror}") from error
        yield ResultsLog(file, done, extract)


def read_results(path: Path, extract: Callable[[dict[str, Any]], T]) -> tuple[dict[str, Any], dict[str, T]]:
    """Return the settings of the results at ``path``, and ``extract`` of each video's last result.

    Raises:
        ResultsMismatch: the file holds something else.
        OSError: it cannot be read.
    """
    settings, done, _ = _read(path, extract)
    return settings or {}, done


def _open(path: Path) -> BinaryIO:
    """Open a regular file for reading and appending; it and its folder are created if they are missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", buffering=0)  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        names_no_file = isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError)
        kind = OSError if names_no_file else UnwritableResults
        raise kind(f"cannot write {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is not a regular file, so that results in it could not be continued")
    return file


def _read(
    path: Path, extract: Callable[[dict[str, Any]], T]
) -> tuple[dict[str, Any] | None, dict[str, T], int]:
    """Return the settings, the results by video, and the offset of the end of the last complete line."""
    settings: dict[str, Any] | None = None
    done: dict[str, T] = {}
    end = 0
    with open(path, "rb") as lines:
        for line in lines:
            if not line.endswith(b"\n") and (settings is not None or _may_be_torn_settings(line)):
                break
            try:
                content = json.loads(line)
                if settings is None:
                    settings = next(dict(content[key]) for key in _SETTINGS_KEYS if key in content)
                else:
                    done[content["video"]] = extract(content)
            except (ValueError, LookupError, TypeError, StopIteration):
                raise ResultsMismatch(
                    f"{path} is not a file of tubelet's results; name another --out"
                ) from None
            end += len(line)
    return settings, done, end


def _may_be_torn_settings(torn: bytes) -> bool:
    """Return whether the incomplete line may be the beginning of a line of settings."""
    return any(torn[: len(begin)] == begin[: len(torn)] for begin in _SETTINGS_STARTS)


def _check_settings(path: Path, before: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise ResultsMismatch if the settings of the file differ from ``settings``."""
    differing = [key for key in settings if before.get(key) != settings[key]]
    if None in (before.get(FINGERPRINT), settings.get(FINGERPRINT)):
        differing = [key for key in differing if key != FINGERPRINT]
    if differing:
        said = ", ".join(f"{key} was {before.get(key)}, is {settings[key]}" for key in differing)
        raise ResultsMismatch(f"{path} holds results of other settings ({said}); name another --out")


def _append(file: BinaryIO, content: dict[str, Any]) -> None:
    """Append a line; if that fails, restore the file and raise OSError."""
    append_whole(file, (json.dumps(content, ensure_ascii=False) + "\n").encode())


def append_whole(file: BinaryIO, data: bytes) -> None:
    """Append ``data`` to an unbuffered file; if that fails, restore the file and raise OSError."""
    end = file.seek(0, os.SEEK_END)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(end)
        raise
