"""Files of answers, which replace only what tubelet wrote before, known by its content.

They are pages, subtitles, and the pictures, videos and archives of explanations.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

PAGE_MARK = b'<meta name="generator" content="tubelet">'
WEBVTT_START = "WEBVTT\n\nNOTE Labels by tubelet\n\n"
COMMENT_MARK = "written by tubelet"
"""The comment of a .zip or .npz (APPNOTE 4.3.16) and of an mp4, at the end of the file."""
PICTURE_MARK = ("Software", "tubelet")
"""The key and text of a PNG's tEXt chunk, before its pixels (W3C, Portable Network Graphics, 11.3.3.2)."""
_PNG_START, _ZIP_START, _MP4_START = b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"ftyp"
_PAGE_START = b"<!doctype html>"
_TAIL_BYTES = 512  # of an archive or a video, in which its mark stands
_HEAD_BYTES = 4096  # of a page, before its title, in which the mark stands
_SRT_LINES = 4  # of a cue, with the empty one
# SubRip has no comments: each cue is a label and its score.
_SRT_CUE = re.compile(
    rb"\d+\n\d{2,}:\d\d:\d\d,\d{3} --> \d{2,}:\d\d:\d\d,\d{3}\n[^\n]* (?:0\.\d\d|1\.00)\n\n"
)


def check_replaceable(path: Path) -> None:
    """Check that ``path`` is free, or names a file of an answer that tubelet wrote, or an empty file.

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
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that becomes ``path`` when the context ends well; create the folder that it lies in.

    Raises:
        OSError: it cannot be written, or would replace a file that tubelet did not write.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
        part.replace(path)
    except BaseException:
        if not part.is_dir():
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
        if begin.startswith(_PNG_START):
            return b"\0".join(text.encode() for text in PICTURE_MARK) in begin
        if begin.startswith(_ZIP_START) or begin[4:8] == _MP4_START:
            return _ends_with_mark(file)
        file.seek(0)
        while cue := b"".join(islice(file, _SRT_LINES)):
            if _SRT_CUE.fullmatch(cue) is None:
                return False
    return True


def _ends_with_mark(file: BinaryIO) -> bool:
    """Return whether the mark of an archive or a video is at the end of a file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    return COMMENT_MARK.encode() in file.read()
