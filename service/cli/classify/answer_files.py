"""The files of ``tubelet classify --csv --srt --vtt``: a table of all videos, and subtitles of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tubelet.service.cli.runs.output_paths import check_paths, paths_in
from tubelet.service.cli.runs.results_log import append_whole
from tubelet.service.cli.runs.runner import Answer, Failure
from tubelet.service.cli.runs.video_sources import Source
from tubelet.service.report.csv_table import csv_header, csv_rows
from tubelet.service.report.own_files import write_own
from tubelet.service.report.subtitles import srt_text, webvtt_text
from tubelet.service.types.result import Classification

_SUBTITLES: dict[str, Callable[[Classification], str]] = {".srt": srt_text, ".vtt": webvtt_text}


@dataclass(frozen=True, slots=True)
class FileOptions:
    """The paths of the files; those of subtitles are folders, unless they end as such files do."""

    csv: Path | None = None
    srt: Path | None = None
    vtt: Path | None = None

    @property
    def subtitles(self) -> dict[str, Path]:
        """The paths of subtitles, by the suffix of their format."""
        paths = {".srt": self.srt, ".vtt": self.vtt}
        return {suffix: path for suffix, path in paths.items() if path is not None}

    @property
    def single_files(self) -> list[Path]:
        """The paths that have room for one video alone."""
        return [path for suffix, path in self.subtitles.items() if path.suffix.lower() == suffix]


class AnswerFiles:
    """The files of one run over ``sources``; ``report`` gets a sentence about each that cannot be written.

    If the run ``continues`` an earlier one, so does its table.
    """

    def __init__(
        self,
        options: FileOptions,
        sources: Sequence[Source],
        report: Callable[[str], None],
        *,
        continues: bool,
    ) -> None:
        self._paths = {
            suffix: dict.fromkeys(sources, path)
            if path in options.single_files
            else paths_in(path, sources, suffix)
            for suffix, path in options.subtitles.items()
        }
        self._report = report
        self._table = None if options.csv is None else _Table(options.csv, report, continues=continues)

    def __enter__(self) -> "AnswerFiles":
        """Begin the table.

        Raises:
            OSError: subtitles would replace a file that tubelet did not write.
        """
        for paths in self._paths.values():
            check_paths(paths.values())
        if self._table is not None:
            self._table.open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._table is not None:
            self._table.close()

    def add(self, source: Source, answer: Answer) -> None:
        """Write the rows and subtitles of an answer; a failure has none."""
        if isinstance(answer, Failure):
            return
        if self._table is not None:
            self._table.append(csv_rows(source.name, answer.segments))
        for suffix, paths in self._paths.items():
            try:
                write_own(paths[source], _SUBTITLES[suffix](answer))
            except OSError as error:
                self._report(f"cannot write {paths[source]}: {error.strerror}")


class _Table:
    """A file of rows below a header."""

    def __init__(self, path: Path, report: Callable[[str], None], *, continues: bool) -> None:
        self._path = path
        self._report = report
        self._continues = continues
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Open the file, which must be new, or a table: another file's content is not overwritten."""
        header = csv_header().encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = file = open(self._path, "a+b", buffering=0)  # noqa: SIM115 (``close`` closes it)
            file.seek(0)
            begin = file.read(len(header))
            if begin not in (b"", header):
                self._stop(f"{self._path} is no table of tubelet's; name another --csv")
            elif not begin or not self._continues:
                file.truncate(0)
                append_whole(file, header)
        except OSError as error:
            self._stop(f"cannot write {self._path}: {error.strerror}")

    def append(self, rows: str) -> None:
        """Append rows; if that fails, none of them is left in the file, and no others follow."""
        if self._file is None:
            return
        try:
            append_whole(self._file, rows.encode(errors="backslashreplace"))
        except OSError as error:
            self._stop(f"cannot write {self._path}: {error.strerror}; it has no rows from here on")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _stop(self, sentence: str) -> None:
        """Report why there are no more rows."""
        self.close()
        self._file = None
        self._report(sentence)
