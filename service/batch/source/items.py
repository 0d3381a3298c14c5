"""The videos of a batch: their URIs, versions and ids, and the shards that they belong to."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from tubelet.service.types.uri import parse_uri

Ranges = tuple[tuple[int, int], ...]
"""Time ranges [start, end) in nanoseconds; empty: the whole video."""

_ID_BYTES = 16


class UnusableSource(ValueError):
    """A source of videos cannot be read, or is not what it should be."""


@dataclass(frozen=True, slots=True)
class Item:
    """A video to classify. ``etag`` is of the version that was found; ``problem`` says why there is none.

    Equal ids are the same video, in the same version and the same ranges.
    """

    id: str
    uri: str
    etag: str = ""
    ranges_ns: Ranges = ()
    problem: str | None = None
    reason: str = "FILE_NOT_READABLE"  # of the problem, if there is one
    size_bytes: int = field(default=0, compare=False)  # 0: not known


def item_id(uri: str, etag: str, ranges_ns: Ranges = ()) -> str:
    """Return the id of a video: 32 hexadecimal digits, which depend on nothing but these values."""
    content = json.dumps([uri, etag, ranges_ns])
    return blake2b(content.encode(errors="backslashreplace"), digest_size=_ID_BYTES).hexdigest()


def file_item(path: str, ranges_ns: Ranges = (), name: str | None = None) -> Item:
    """Return the item of a file on this machine; ``name`` is its id, if it has one already."""
    uri = Path(os.path.abspath(path)).as_uri()
    etag = file_etag(path)
    size_bytes = int(etag.partition("-")[0] or "0", 16)
    return Item(name or item_id(uri, etag, ranges_ns), uri, etag, ranges_ns, size_bytes=size_bytes)


def uri_item(
    text: str, etag: str = "", ranges_ns: Ranges = (), name: str | None = None, size_bytes: int = 0
) -> Item:
    """Return the item at a URI of another machine; ``name`` is its id, if it has one already.

    A URI that cannot be read becomes a problem.
    """
    try:
        uri = parse_uri(text).url
    except ValueError as error:
        return Item(name or item_id(text, etag, ranges_ns), text, etag, ranges_ns, f"{text}: {error}")
    return Item(name or item_id(uri, etag, ranges_ns), uri, etag, ranges_ns, size_bytes=size_bytes)


def longest_first(items: Iterable[Item]) -> list[Item]:
    """Return the items by the size of their files, which stands for their length; unknown ones are last."""
    return sorted(items, key=lambda item: -item.size_bytes)


def file_etag(path: str) -> str:
    """Return what tells the versions of a file apart: its size and the time of its last change; "" if none.

    No byte of the file is read.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` (from 0) of ``count`` parts of a batch; a video's URI alone says to which it belongs."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"a shard is I/N with I from 0 to N - 1, such as 0/4; found {self}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """The name of the shard in the paths of its files."""
        return f"shard-{self.index:05}-of-{self.count:05}"

    def has(self, item: Item) -> bool:
        """Return whether the item belongs to this shard."""
        digest = blake2b(item.uri.encode(errors="backslashreplace"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index
