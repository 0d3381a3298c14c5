"""The videos that a command line names: paths, URIs, folders, lists of them and standard input."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tubelet.service.types.uri import is_uri

STANDARD_INPUT = "-"

# Endings of files that are taken for videos in a folder. A file that is named itself may have any ending.
VIDEO_EXTENSIONS = (
    *("264", "265", "3g2", "3gp", "asf", "avi", "cmfv", "flv", "gif", "h264", "h265", "hevc", "ivf", "m2ts"),
    *("m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "mxf", "obu", "ogv", "ts", "webm", "wmv"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Something to classify, by the name that its answer carries; ``problem`` says why it cannot be."""

    name: str
    problem: str | None = None


def find_videos(named: Iterable[str], list_file: str | None, *, recursive: bool) -> list[Source]:
    """The videos of the command line and of a list, in their order, with the folders' own in between.

    ``list_file`` names a video a line, and may be standard input. What cannot be read becomes a source with a
    problem.
    """
    is_input_taken = list_file == STANDARD_INPUT
    listed = [] if list_file is None else _of_list(list_file)
    found: list[Source] = []
    for source in [*(Source(name) for name in named), *listed]:
        if source.problem is not None:
            found.append(source)
        elif source.name == STANDARD_INPUT:
            found.append(_standard_input(is_input_taken))
            is_input_taken = True
        elif is_uri(source.name):
            found.append(_uri(source.name))
        elif not os.path.isdir(source.name):
            found.append(source)
        elif recursive:
            found += _of_folder(source.name)
        else:
            found.append(Source(source.name, "is a folder; with -r, the videos in it are classified"))
    return found


def _uri(name: str) -> Source:
    try:
        name.encode()
    except UnicodeEncodeError:
        return Source(name, "is no URI: it has a byte that is not UTF-8; a URI has %E9 for it, say")
    return Source(name)


def _standard_input(is_taken: bool) -> Source:
    if is_taken:
        return Source(STANDARD_INPUT, "standard input can be read once, and something before reads it")
    if sys.stdin is not None and sys.stdin.isatty():
        return Source(STANDARD_INPUT, "standard input is a terminal; pipe a video into it")
    return Source(STANDARD_INPUT)


def _of_list(list_file: str) -> list[Source]:
    try:
        content = sys.stdin.buffer.read() if list_file == STANDARD_INPUT else Path(list_file).read_bytes()
    except OSError as error:
        return [Source(list_file, f"cannot be read: {error.strerror}")]
    names = [os.fsdecode(line.strip(b"\r")) for line in content.split(b"\n")]
    return [Source(name) for name in names if name.strip()] or [Source(list_file, "the list names no videos")]


def _of_folder(folder: str) -> Iterator[Source]:
    found = list(_walk(folder))
    yield from found
    if not found:
        endings = ", ".join(f".{ending}" for ending in VIDEO_EXTENSIONS)
        yield Source(folder, f"the folder has no videos: no file in it ends in one of {endings}")


def _walk(top: str) -> Iterator[Source]:
    """Videos sorted by name, files before folders; nothing hidden, and nothing twice through links."""
    seen: set[str] = set()
    folders = [top]
    while folders:
        folder = folders.pop()
        if not _is_new(folder, seen):
            continue
        try:
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except OSError as error:
            yield Source(folder, f"cannot be read: {error.strerror}")
            continue
        paths = [os.path.join(folder, name) for name in names]
        folders += reversed([path for path in paths if os.path.isdir(path)])
        yield from (Source(path) for path in paths if _is_video(path) and _is_new(path, seen))


def _is_new(path: str, seen: set[str]) -> bool:
    """Whether the path leads to something that is not in ``seen``, where it is from now on."""
    real = os.path.realpath(path)
    is_new = real not in seen
    seen.add(real)
    return is_new


def _is_video(path: str) -> bool:
    """Whether the name ends like a video's, and the path is a file or a link that leads nowhere."""
    if os.path.splitext(path)[1].lower().lstrip(".") not in VIDEO_EXTENSIONS:
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:  # it is reported when it is read
        return True
