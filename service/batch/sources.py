"""The videos that SOURCE names: a folder, a glob, a file, a prefix of URIs, or a manifest."""

import glob
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from tubelet.service.batch.items import Item, Shard, UnusableSource, file_item, item_id
from tubelet.service.batch.manifest_files import MANIFESTS, read_manifest
from tubelet.service.ingest.video_folder import VIDEO_EXTENSIONS, find_video_files
from tubelet.service.types.uri import is_uri


def find_items(source: str) -> Iterator[Item]:
    """Yield the videos of ``source``, in order.

    No byte of a video is read. What cannot be read becomes an item with a problem.

    Raises:
        UnusableSource: there is nothing, or a manifest cannot be read.
    """
    if is_uri(source):
        raise UnusableSource(f"{source} is a URI; name a folder, a glob or a manifest of this machine")
    if os.path.isdir(source):
        return _found(
            _folder_items(source),
            f"the folder {source} has no videos: no file in it ends with one of "
            f"{', '.join(VIDEO_EXTENSIONS)}",
        )
    if os.path.isfile(source):
        is_manifest = Path(source).suffix.lower() in MANIFESTS
        return read_manifest(Path(source)) if is_manifest else iter([file_item(source)])
    if glob.has_magic(source):
        paths = sorted(glob.glob(source, recursive=True))
        return _found(
            (file_item(path) for path in paths if os.path.isfile(path)), f"no file matches {source}"
        )
    raise UnusableSource(f"{source} is neither a folder nor a file, and no glob")


def chosen_items(items: Iterable[Item], shard: Shard, seed: int | None) -> list[Item]:
    """Return the items of the shard, each id once; with a ``seed``, shuffled.

    Raises:
        UnusableSource: different videos have one id.
    """
    by_id: dict[str, Item] = {}
    for item in items:
        known = by_id.setdefault(item.id, item)
        if (known.uri, known.ranges_ns) != (item.uri, item.ranges_ns):
            raise UnusableSource(f"two videos have the id {item.id!r}: {known.uri} and {item.uri}")
    chosen = [item for item in by_id.values() if shard.has(item)]
    if seed is not None:
        random.Random(seed).shuffle(chosen)
    return chosen


def _folder_items(folder: str) -> Iterator[Item]:
    """Yield the videos in a folder, at any depth."""
    for path, problem in find_video_files(folder):
        if problem is None:
            yield file_item(path)
        else:
            uri = Path(os.path.abspath(path)).as_uri()
            yield Item(item_id(uri, ""), uri, problem=problem)


def _found(items: Iterator[Item], otherwise: str) -> Iterator[Item]:
    """Yield the items; raise UnusableSource with the text ``otherwise`` if there are none."""
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        raise UnusableSource(otherwise)
