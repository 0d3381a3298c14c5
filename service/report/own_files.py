"""Pages and subtitles as files, which replace only what tubelet wrote before, known by its content."""

import errno
import os
import re
from itertools import islice
from pathlib import Path

PAGE_MARK = b'<meta name="generator" content="tubelet">'
WEBVTT_START = "WEBVTT\n\nNOTE Labels by tubelet\n\n"
_PAGE_START = b"<!doctype html>"
_HEAD_BYTES = 4096  # of a page, before its title, in which the mark stands
_SRT_LINES = 4  # of a cue, with the empty one
# SubRip has no comments: each cue is a label and its score.
_SRT_CUE = re.compile(
    rb"\d+\n\d{2,}:\d\d:\d\d,\d{3} --> \d{2,}:\d\d:\d\d,\d{3}\n[^\n]* (?:0\.\d\d|1\.00)\n\n"
)


def check_replaceable(path: Path) -> None:
    """Check that ``path`` is free, or names a page or subtitles that tubelet wrote, or an empty file.

    Raises:
        OSError: it names something else, or lies in what is no folder; ``strerror`` says which.
    """
    for folder in path.parents:
        if folder.exists():
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file, not a folder")
            break
    if not path.exists():
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not path.is_file() or not _is_own(path):
        raise FileExistsError(
            errno.EEXIST, "it exists, and tubelet did not write it; remove it, or name another path"
        )


def write_own(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, as a whole or not at all; create the folder that it lies in.

    Raises:
        OSError: it cannot be written, or would replace a file that tubelet did not write.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _is_own(path: Path) -> bool:
    """Return whether tubelet wrote the file, or nothing is in it."""
    with open(path, "rb") as file:
        begin = file.read(_HEAD_BYTES)
        if begin.startswith(WEBVTT_START.encode()):
            return True
        if begin.startswith(_PAGE_START):
            return PAGE_MARK in begin
        file.seek(0)
        while cue := b"".join(islice(file, _SRT_LINES)):
            if _SRT_CUE.fullmatch(cue) is None:
                return False
    return True
