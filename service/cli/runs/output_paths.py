"""Files that a command writes for its videos: their names in a folder, and whether they may be written."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePath

from tubelet.service.cli.runs.video_sources import STANDARD_INPUT, Source
from tubelet.service.report.own_files import check_replaceable
from tubelet.service.report.text import decodable
from tubelet.service.types.uri import is_uri

_MAX_NAME = 100  # characters, without the suffix
_MAX_BYTES = 200  # of the 255 that a name may have; others follow, and stand around it while it is written


def paths_in(
    folder: Path, sources: Iterable[Source], suffix: str, taken: Collection[str] = ()
) -> dict[Source, Path]:
    """Return a path in ``folder`` for each source; no two are equal, also where case does not count.

    Names without ``suffix`` that are ``taken`` are not used.
    """
    used, paths = {name.lower() for name in taken}, {}
    for source in dict.fromkeys(sources):
        stem = name = file_name(source.name)
        number = 1
        while name.lower() in used:
            number += 1
            name = f"{stem}-{number}"
        used.add(name.lower())
        paths[source] = folder / f"{name}{suffix}"
    return paths


def check_paths(paths: Iterable[Path]) -> None:
    """Check, before the work, that none of ``paths`` names a file that tubelet did not write, or no file.

    Raises:
        OSError: one does; the message is a sentence.
    """
    for path in paths:
        try:
            check_replaceable(path)
        except OSError as error:
            raise OSError(f"cannot write {path}: {error.strerror}") from error


def file_name(source: str) -> str:
    """Return a file's name for a source, without a suffix: letters, digits and a few signs."""
    path = source.partition("?")[0] if is_uri(source) else source
    plain = re.sub(r"[^\w.+-]+", "_", PurePath(short_name(path)).stem).strip("._")[:_MAX_NAME]
    return plain.encode()[:_MAX_BYTES].decode(errors="ignore") or "video"


def short_name(source: str) -> str:
    """Return the last part of a path or URI, for people."""
    if source == STANDARD_INPUT:
        return "standard input"
    return decodable(source.rstrip("/").rpartition("/")[2]) or decodable(source)
