"""The videos that SOURCE names: a folder, a glob, a file, a prefix of URIs, or a manifest."""

import glob
import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, unquote

from tubelet.models.errors import MissingExtra
from tubelet.service.batch.filesystems import open_filesystem
from tubelet.service.batch.source.items import Item, Shard, UnusableSource, file_item, item_id, uri_item
from tubelet.service.batch.source.manifest_files import MANIFESTS, read_manifest
from tubelet.service.config.config import FetchConfig
from tubelet.service.ingest.video_folder import VIDEO_EXTENSIONS, find_video_files
from tubelet.service.types.uri import Uri, is_covered, is_uri, parse_prefix, parse_uri

_SAFE = "/:@!$&'()*+,;="  # in the path of a URI, beside letters, digits and -._~ (RFC 3986)


def find_items(source: str, config: FetchConfig) -> Iterator[Item]:
    """Yield the videos of ``source``, in order; ``config`` has the options of object stores.

    No byte of a video is read. What cannot be read becomes an item with a problem.

    Raises:
        UnusableSource: there is nothing, or a manifest is none.
        MissingExtra: it needs a library that is not installed.
        OSError: an object store cannot be read; later, it may be.
    """
    if is_uri(source):
        return _items_at(source, config)
    if os.path.isdir(source):
        extensions = ", ".join(VIDEO_EXTENSIONS)
        none = f"the folder {source} has no videos: no file in it ends with one of {extensions}"
        return _found(_folder_items(source), none)
    if os.path.isfile(source):
        is_manifest = Path(source).suffix.lower() in MANIFESTS
        return read_manifest(Path(source)) if is_manifest else iter([file_item(source)])
    if glob.has_magic(source):
        paths = (path for path in sorted(glob.glob(source, recursive=True)) if os.path.isfile(path))
        return _found(map(file_item, paths), f"no file matches {source}")
    raise UnusableSource(f"{source} is neither a folder nor a file, and no glob")


def source_prefixes(source: str) -> tuple[str, ...]:
    """Return the prefixes of URIs that whoever names ``source`` allows to be read."""
    is_manifest = source.lower().endswith(MANIFESTS)
    return (source,) if is_uri(source) and not is_manifest and not source.startswith("file:") else ()


def check_allowed(items: Iterable[Item], prefixes: Iterable[str]) -> None:
    """Check that the URIs of some items may be read.

    Raises:
        UnusableSource: none of them may.
    """
    parsed = [parse_prefix(prefix) for prefix in prefixes]
    uris = [each.uri for each in items if each.problem is None]
    remote = [uri for uri in uris if not uri.startswith("file:")]
    if remote and len(remote) == len(uris) and not any(is_covered(parse_uri(uri), parsed) for uri in remote):
        example = parse_uri(remote[0])
        raise UnusableSource(
            f"fetch.allow covers none of the URIs, such as {example}; to allow them, set "
            f"TUBELET_FETCH__ALLOW='[\"{example.scheme}://{example.authority}/\"]'"
        )


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


def _items_at(source: str, config: FetchConfig) -> Iterator[Item]:
    """Yield the videos at a URI: those of a folder, a manifest, or a prefix in an object store."""
    try:
        uri = parse_uri(source)
    except ValueError as error:
        raise UnusableSource(f"{source}: {error}") from None
    if uri.scheme == "file":
        return find_items(uri.local_path, config)
    if uri.scheme not in ("s3", "gs"):
        raise UnusableSource(f"{uri} cannot be listed; name a manifest of its URIs")
    if uri.path.lower().endswith(MANIFESTS):
        return _manifest_at(uri, config)
    extensions = ", ".join(VIDEO_EXTENSIONS)
    return _found(_object_items(uri, config), f"no object under {uri} ends with one of {extensions}")


def _manifest_at(uri: Uri, config: FetchConfig) -> Iterator[Item]:
    """Yield the videos of a manifest in an object store."""
    base, _, name = str(uri).rpartition("/")
    with TemporaryDirectory() as folder, _listed(uri):
        file = Path(folder) / Path(unquote(name)).name
        open_filesystem(uri, config).get_file(f"{uri.host}{uri.key}", str(file))
        yield from read_manifest(file, base)


def _object_items(uri: Uri, config: FetchConfig) -> Iterator[Item]:
    """Yield the videos under a prefix of an object store, with the versions that it lists."""
    with _listed(uri):
        top = f"{uri.host}{uri.key}".rstrip("/")
        for _, _, files in open_filesystem(uri, config).walk(top, detail=True, on_error="raise"):
            for info in sorted(files.values(), key=itemgetter("name")):
                if info["name"].rpartition(".")[2].lower() in VIDEO_EXTENSIONS:
                    etag = str(info["ETag" if uri.scheme == "s3" else "generation"])
                    name = f"{uri.scheme}://{quote(info['name'], _SAFE)}"
                    yield uri_item(name, etag, size_bytes=int(info["size"] or 0))


@contextmanager
def _listed(uri: Uri) -> Iterator[None]:
    """Raise errors of an object store as OSError, but UnusableSource where there is nothing."""
    try:
        yield
    except (UnusableSource, MissingExtra, GeneratorExit):
        raise
    except FileNotFoundError:
        raise UnusableSource(f"there is nothing at {uri}") from None
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"{uri} cannot be read: {said}") from error


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
