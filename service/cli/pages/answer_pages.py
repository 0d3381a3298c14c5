"""The pages of ``tubelet classify --html``: one for each video, and an index beside several."""

import json
import os
from asyncio import CancelledError
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from tubelet.service.cli.output import answer_json
from tubelet.service.cli.pages.playable_video import NotPlayable, PlayableVideos
from tubelet.service.cli.runs.kept_answer import KeptAnswer
from tubelet.service.cli.runs.output_paths import check_paths, file_name, paths_in, short_name
from tubelet.service.cli.runs.runner import Answer, Failure
from tubelet.service.cli.runs.video_sources import STANDARD_INPUT, Source
from tubelet.service.config.config import DecodeConfig
from tubelet.service.report.csv_table import csv_header, csv_rows
from tubelet.service.report.own_files import write_own
from tubelet.service.report.page import render_page
from tubelet.service.report.subtitles import srt_text, webvtt_text
from tubelet.service.report.text import decodable, printable
from tubelet.service.report.video_page import Download, PlayableVideo, least_page_bytes, render_video_page
from tubelet.service.types.result import Classification
from tubelet.service.types.uri import is_uri

_DEFAULT_MB = 25
_BYTES_PER_MB = 1_000_000
_BASE64_GROWTH = 4 / 3
_MARGIN_BYTES = 1000  # for the element around a video, or the sentence in its place
_INDEX = "index"
_MAX_NAMED = 5  # missing pages in a sentence
_INTERRUPTED = "The page has pictures only: the command was interrupted before the video was converted."
_MAX_INDEX_PICTURES_BYTES = 2_000_000  # of all pictures together, so that an index opens at once


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Where pages go, whether they hold their videos, and how large each may be."""

    path: Path
    has_video: bool = True
    max_bytes: int = _DEFAULT_MB * _BYTES_PER_MB

    @classmethod
    def of_megabytes(cls, path: Path, limit_mb: float | None, *, has_video: bool) -> "PageOptions":
        """Make the options with a limit in megabytes; None stands for the default."""
        limit_mb = _DEFAULT_MB if limit_mb is None else limit_mb
        return cls(path, has_video, round(limit_mb * _BYTES_PER_MB))

    @property
    def single_files(self) -> list[Path]:
        """The path, if it has room for the page of one video alone and is no folder."""
        return [self.path] if self.path.suffix.lower() in (".html", ".htm") else []


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A line of the index: a video, the link to its page, its best label, or why it has none."""

    name: str
    folder: str = ""
    href: str = ""
    picture: str = ""  # a JPEG in base64
    label: str = ""
    score: float = 0.0
    duration_ns: int = 0
    note: str = ""
    has_failed: bool = False


class AnswerPages:
    """The pages of one run over ``sources``; leaving the context writes their index.

    ``config`` is that of the worker that decodes videos which browsers do not play. ``report`` gets a
    sentence about each page that cannot be written, ``say`` about one that takes a while.
    """

    def __init__(
        self,
        options: PageOptions,
        sources: Sequence[Source],
        config: DecodeConfig,
        report: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._videos = PlayableVideos(config, say)
        self._report = report
        self._paths = (
            dict.fromkeys(sources, options.path)
            if options.single_files
            else paths_in(options.path, sources, ".html", taken=[_INDEX])
        )
        self._rows = {source: _row_before(source, path) for source, path in self._paths.items()}
        self._room_for_pictures = _MAX_INDEX_PICTURES_BYTES

    def check(self) -> None:
        """Check that the pages and the index may be written.

        Raises:
            OSError: one would replace a file that tubelet did not write.
        """
        check_paths(self._paths.values())
        if not self._options.single_files:
            check_paths([self._index_path])

    @property
    def _index_path(self) -> Path:
        """The path of the index."""
        return self._options.path / f"{_INDEX}.html"

    async def __aenter__(self) -> "AnswerPages":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._videos.__aexit__()
        self.write_index()

    def add_earlier(self, answers: Mapping[Source, KeptAnswer]) -> None:
        """Add the lines of videos that an earlier run answered, and report which of their pages are missing.

        What was kept of an answer has neither the pictures nor the facts that a page shows.
        """
        missing = list[Path]()
        for source, kept in answers.items():
            row, path = self._rows[source], self._paths[source]
            if kept.has_failed:
                self._rows[source] = replace(row, href="", note=kept.error, has_failed=True)
                continue
            note = "" if row.href else "its page is missing"
            label = {"label": kept.label, "score": kept.score, "duration_ns": kept.duration_ns}
            self._rows[source] = replace(row, note=note, **label)
            if not row.href:
                missing.append(path)
        if missing:
            named = ", ".join(map(str, missing[:_MAX_NAMED]))
            more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
            self._report(
                f"missing: {named}{more}; the answers are of an earlier run, which kept no pictures: "
                "run the command without --out to make these pages"
            )

    def write_index(self) -> None:
        """Write the page that lists all others, if there is one."""
        if not self._options.single_files:
            self._write(self._index_path, self._index())

    async def add(self, source: Source, answer: Answer) -> None:
        """Write the page of an answer; a failure has only a line of the index."""
        row = _named_row(source)
        if isinstance(answer, Failure):
            self._rows[source] = replace(row, note=answer.message, has_failed=True)
            return
        row = replace(row, duration_ns=answer.metadata.duration_ns, picture=self._picture(answer))
        if answer.labels:
            row = replace(row, label=answer.labels[0].name, score=answer.labels[0].score)
        try:
            is_written = await self._add_page(source, answer)
        except CancelledError:  # Ctrl-C, while the video was converted
            self._add_row(source, row, self._write_page(source, answer, None, [_INTERRUPTED]))
            raise
        self._add_row(source, row, is_written)

    def _add_row(self, source: Source, row: IndexRow, is_written: bool) -> None:
        """Add the line of an answered video to the index."""
        if is_written:
            self._rows[source] = replace(row, href=quote(os.fsencode(self._paths[source].name)))
        else:
            self._rows[source] = replace(row, note="its page could not be written", has_failed=True)

    async def _add_page(self, source: Source, answer: Classification) -> bool:
        """Write the page of a video, and return whether that succeeded."""
        least_bytes = least_page_bytes(answer)
        if least_bytes > self._options.max_bytes:
            self._report(
                f"the page of {printable(source.name)} is not written: its {len(answer.segments):,} segments "
                f"need more than {least_bytes / _BYTES_PER_MB:.1f} MB, and the limit is "
                f"{self._options.max_bytes / _BYTES_PER_MB:g} MB; use longer windows, or raise --html-mb"
            )
            return False
        page = _page(source, answer, None, [])
        room_bytes = self._options.max_bytes - len(page.encode(errors="backslashreplace"))
        if room_bytes < 0:
            limit = self._options.max_bytes / _BYTES_PER_MB
            size = limit - room_bytes / _BYTES_PER_MB
            self._report(
                f"the page of {printable(source.name)} is not written: even without its video it has "
                f"{size:.1f} MB, and the limit is {limit:g} MB; --html-mb {size + 1:.0f} allows it"
            )
            return False
        if self._options.has_video:
            return self._write_page(source, answer, *await self._find_video(source, room_bytes))
        return self._write(self._paths[source], page)

    async def _find_video(self, source: Source, room_bytes: int) -> tuple[PlayableVideo | None, list[str]]:
        """Return the video for the page, or a sentence that says why the page is without it."""
        if source.name == STANDARD_INPUT:
            return None, ["The page has pictures only: the video came from standard input."]
        if is_uri(source.name):
            return None, ["The page has pictures only: the video is at a URI, not in a file of this machine."]
        try:
            return await self._videos.make(source.name, int(room_bytes / _BASE64_GROWTH) - _MARGIN_BYTES), []
        except NotPlayable as error:
            return None, [f"The page has pictures only: {error}."]

    def _picture(self, answer: Classification) -> str:
        """Return the picture in the middle of a video, for the index, as long as there is room in it."""
        picture = ""
        if answer.thumbnails:
            picture = b64encode(answer.thumbnails[len(answer.thumbnails) // 2].jpeg).decode()
        self._room_for_pictures -= len(picture)
        return picture if self._room_for_pictures >= 0 else ""

    def _write_page(
        self, source: Source, answer: Classification, video: PlayableVideo | None, notes: Sequence[str]
    ) -> bool:
        """Write the page of an answer, and return whether that succeeded."""
        return self._write(self._paths[source], _page(source, answer, video, notes))

    def _write(self, path: Path, page: str) -> bool:
        """Write a page, and return whether that succeeded."""
        try:
            write_own(path, page)
        except OSError as error:
            self._report(f"cannot write {path}: {error.strerror}")
            return False
        return True

    def _index(self) -> str:
        """Return the page that lists all others."""
        rows = list(self._rows.values())
        return render_page("index.html", ["table.js"], title="Videos", rows=rows, note="")


def _row_before(source: Source, path: Path) -> IndexRow:
    """Return the line of a video without an answer in this run: it cannot be read, or has one already."""
    row = _named_row(source)
    if source.problem is not None:
        return replace(row, note=source.problem, has_failed=True)
    return (
        replace(row, href=quote(os.fsencode(path.name)))
        if path.is_file()
        else replace(row, note="no page yet")
    )


def _named_row(source: Source) -> IndexRow:
    """Return a line with nothing but the name of a video, and where the video is."""
    name = short_name(source.name)
    return IndexRow(name, decodable(source.name).removesuffix(name) if source.name != STANDARD_INPUT else "")


def _page(source: Source, answer: Classification, video: PlayableVideo | None, notes: Sequence[str]) -> str:
    """Return the page of an answer."""
    return render_video_page(short_name(source.name), answer, video, notes, downloads_of(source.name, answer))


def downloads_of(source: str, answer: Classification) -> list[Download]:
    """Return the files that a page offers: the same as the command writes."""
    stem = file_name(source)
    text = json.dumps(answer_json(source, replace(answer, thumbnails=())), ensure_ascii=False) + "\n"
    return [
        Download("JSON", f"{stem}.json", "application/json", text),
        Download("CSV", f"{stem}.csv", "text/csv", csv_header() + csv_rows(source, answer.segments)),
        Download("SRT", f"{stem}.srt", "application/x-subrip", srt_text(answer)),
        Download("WebVTT", f"{stem}.vtt", "text/vtt", webvtt_text(answer)),
    ]
