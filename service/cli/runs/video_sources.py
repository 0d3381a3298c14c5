"""The videos that a command line names: by paths, URIs, folders, lists and standard input."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tubelet.service.ingest.video_folder import VIDEO_EXTENSIONS, find_video_files
from tubelet.service.types.uri import is_uri

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """A video to classify, by the name that its answer carries; ``problem`` says why it cannot be read."""

    name: str
    problem: str | None = None


def find_videos(names: Iterable[str], list_file: str | None, *, recursive: bool) -> list[Source]:
    """Return the videos of ``names`` and of a list, in order; a folder stands for the videos in it.

    ``list_file`` holds one name a line; ``-`` is standard input. What cannot be read becomes a source with a
    problem.
    """
    is_input_taken = list_file == STANDARD_INPUT
    listed = [] if list_file is None else _read_list(list_file)
    found: list[Source] = []
    for source in [*(Source(name) for name in names), *listed]:
        if source.problem is not None:
            found.append(source)
        elif source.name == STANDARD_INPUT:
            found.append(_standard_input_source(is_input_taken))
            is_input_taken = True
        elif is_uri(source.name):
            found.append(_uri_source(source.name))
        elif not os.path.isdir(source.name):
            found.append(source)
        elif recursive:
            found += _search_folder(source.name)
        else:
            found.append(Source(source.name, "is a folder; -r classifies the videos in it"))
    return found


def _uri_source(name: str) -> Source:
    """Return the source of a URI; one that is not UTF-8 has a problem."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return Source(name, "not a URI: it has a byte that is not UTF-8; percent-encode it, as in %E9")
    return Source(name)


def _standard_input_source(is_taken: bool) -> Source:
    """Return the source of standard input; it has a problem if it is taken already or is a terminal."""
    if is_taken:
        return Source(
            STANDARD_INPUT, "standard input can be read only once, and an earlier argument reads it"
        )
    if sys.stdin is not None and sys.stdin.isatty():
        return Source(STANDARD_INPUT, "standard input is a terminal; pipe a video into it")
    return Source(STANDARD_INPUT)


def _read_list(list_file: str) -> list[Source]:
    """Return the videos that a list names, one a line."""
    try:
        content = sys.stdin.buffer.read() if list_file == STANDARD_INPUT else Path(list_file).read_bytes()
    except OSError as error:
        return [Source(list_file, f"cannot be read: {error.strerror}")]
    names = [os.fsdecode(line.strip(b"\r")) for line in content.split(b"\n")]
    return [Source(name) for name in names if name.strip()] or [Source(list_file, "the list names no videos")]


def _search_folder(folder: str) -> Iterator[Source]:
    """Yield the videos in a folder, or a source that says that there are none."""
    empty = True
    for path, problem in find_video_files(folder):
        empty = False
        yield Source(path, problem)
    if empty:
        extensions = ", ".join(f".{extension}" for extension in VIDEO_EXTENSIONS)
        yield Source(
            folder, f"the folder has no videos: no file in it has one of the extensions {extensions}"
        )
