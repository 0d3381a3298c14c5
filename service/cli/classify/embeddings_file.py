"""The file of ``tubelet classify --embeddings``: the vectors of all videos that were classified."""

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tubelet.models.errors import MissingExtra
from tubelet.service.cli.runs.runner import Answer, Failure, Started
from tubelet.service.report.text import counted
from tubelet.service.report.vector_files import WRITERS, UnequalVectors, VectorWriter
from tubelet.service.types.embeddings import Embeddings
from tubelet.service.types.result import Event
from tubelet.service.types.video import VideoMetadata

_MEMORY_BYTES = 8 << 20  # of the vectors of a video in progress; more of them wait on disk


class EmbeddingsFile:
    """The embeddings of a run in the file ``path``, which appears when ``close`` completes it.

    A video's vectors go into it with its answer: of one that fails or is interrupted it has none. ``say``
    gets a sentence about the file that was written, ``report`` one about why it, or a part of it, was not.
    """

    def __init__(self, path: Path, say: Callable[[str], None], report: Callable[[str], None]) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._say = say
        self._report = report
        self._writer: VectorWriter | None = None
        self._in_progress: dict[int, IO[bytes]] = {}
        self._rows = self._videos = 0

    def __enter__(self) -> "EmbeddingsFile":
        """Create the file under another name.

        Raises:
            OSError: it cannot be created.
            MissingExtra: the format needs a library that is not installed.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self._part, "wb")
        except OSError as error:
            raise OSError(f"cannot write {self._path}: {error.strerror}") from error
        try:
            self._writer = WRITERS[self._path.suffix.lower()](file)
        except ModuleNotFoundError:
            self._part.unlink()
            raise MissingExtra(f"{self._path} needs pyarrow: pip install 'tubelet[parquet]'") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def event(self, number: int, event: Started | Event) -> None:
        """Keep an event of the video with this number, if it has embeddings."""
        if self._writer is None:
            return
        if isinstance(event, VideoMetadata):  # again after a retry, which starts from the beginning
            self._drop(number)
        elif isinstance(event, Embeddings):
            if number not in self._in_progress:
                self._in_progress[number] = _spool(self._path.parent)
            try:
                pickle.dump(event, self._in_progress[number])
            except OSError as error:
                self._give_up(error)

    def answer(self, number: int, video: str, answer: Answer) -> None:
        """Write the embeddings of a video that was classified; forget those of one that failed."""
        if self._writer is None:
            return
        if not isinstance(answer, Failure) and number in self._in_progress:
            try:
                for part in _parts(self._in_progress[number]):
                    self._writer.add(video, part)
                    self._rows += len(part)
                self._videos += 1
            except OSError as error:
                self._give_up(error)
            except UnequalVectors as error:
                self._report(f"{video} is not in {self._path}: {error}")
        self._drop(number)

    def close(self) -> None:
        """Complete the file, and say what it has; without any vector there is none."""
        if self._writer is None:
            return
        try:
            self._writer.close()
            if self._rows:
                self._part.replace(self._path)
                what = f"{counted(self._rows, 'embedding')} of {counted(self._videos, 'video')}"
                self._say(f"{what} {'is' if self._rows == 1 else 'are'} in {self._path}")
        except OSError as error:
            self._report(f"cannot write {self._path}: {error.strerror or error}")
        finally:
            self._forget()

    def _give_up(self, error: OSError) -> None:
        """Report that the file cannot be written, and write no more."""
        self._report(f"cannot write {self._path}: {error.strerror or error}; the embeddings are lost")
        self._forget()

    def _forget(self) -> None:
        """Forget the videos in progress, and remove what is left of the file under its other name."""
        self._writer = None
        for number in tuple(self._in_progress):
            self._drop(number)
        self._part.unlink(missing_ok=True)

    def _drop(self, number: int) -> None:
        """Forget the embeddings of a video in progress."""
        if (kept := self._in_progress.pop(number, None)) is not None:
            kept.close()


def _spool(folder: Path) -> IO[bytes]:
    """Return a file without a name for the parts of a video: in memory, or in ``folder`` if it is large."""
    return tempfile.SpooledTemporaryFile(_MEMORY_BYTES, dir=str(folder))


def _parts(kept: IO[bytes]) -> Iterator[Embeddings]:
    """Yield the parts that were kept of a video, from its own file, which nobody else can write to."""
    kept.seek(0)
    while True:
        try:
            yield pickle.load(kept)
        except EOFError:
            return
