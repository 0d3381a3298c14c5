"""Ids of videos, and the shards that they belong to."""

import os
import sys
from pathlib import Path

import pytest

from tubelet.models.errors import MissingExtra
from tubelet.service.batch.source.items import Item, Shard, UnusableSource, file_item, item_id
from tubelet.service.batch.source.sources import chosen_items, find_items
from tubelet.service.config.config import FetchConfig


def items(number: int) -> list[Item]:
    return [Item(item_id(f"s3://b/{each}.mp4", ""), f"s3://b/{each}.mp4") for each in range(number)]


def test_an_id_depends_on_the_uri_the_version_and_the_ranges() -> None:
    ids = {
        item_id("s3://b/1.mp4", "1"),
        item_id("s3://b/1.mp4", "2"),
        item_id("s3://b/2.mp4", "1"),
        item_id("s3://b/1.mp4", "1", ((0, 5),)),
    }
    assert len(ids) == 4
    assert item_id("s3://b/1.mp4", "1") == "02364ffd68e5025fba917809d98d178b"  # also of other versions


def test_each_video_belongs_to_one_shard() -> None:
    found = items(1000)
    shards = [chosen_items(found, Shard(index, 7), None) for index in range(7)]
    assert sorted(each.id for shard in shards for each in shard) == sorted(each.id for each in found)
    assert min(map(len, shards)) > 100


@pytest.mark.parametrize(("index", "count"), [(4, 4), (-1, 4), (0, 0)])
def test_shards_that_do_not_exist_are_refused(index: int, count: int) -> None:
    with pytest.raises(ValueError, match="with I from 0 to N - 1"):
        Shard(index, count)


def test_a_seed_gives_one_order() -> None:
    found = items(100)
    orders = [[each.uri for each in chosen_items(found, Shard(), seed)] for seed in (None, 1, 1, 2)]
    assert orders[0] == [each.uri for each in found]
    assert orders[1] == orders[2]
    assert len({tuple(order) for order in orders}) == 3


def test_a_video_that_is_named_twice_is_taken_once() -> None:
    assert len(chosen_items([*items(3), *items(3)], Shard(), None)) == 3
    twice = [Item("a", "s3://b/1.mp4"), Item("a", "s3://b/2.mp4")]
    with pytest.raises(UnusableSource, match=r"two videos have the id 'a': s3://b/1.mp4 and s3://b/2.mp4"):
        chosen_items(twice, Shard(), None)


def test_a_file_that_was_replaced_is_another_video(tmp_path: Path) -> None:
    path = tmp_path / "a b % \u00fc\n.mp4"
    path.write_bytes(b"1")
    os.utime(path, ns=(5, 5))
    first = file_item(str(path))
    assert first == file_item(str(path))
    os.utime(path, ns=(6, 6))
    assert file_item(str(path)).id != first.id


def test_folders_and_globs_are_searched_at_any_depth(tmp_path: Path) -> None:
    for name in ("1.mp4", "deep/2.mkv", "deep/er/3.WEBM", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    by_folder = [each.uri.rpartition("/")[2] for each in find_items(str(tmp_path), FetchConfig())]
    by_glob = [each.uri.rpartition("/")[2] for each in find_items(f"{tmp_path}/**/*.m*", FetchConfig())]
    assert by_folder == ["1.mp4", "2.mkv", "3.WEBM"]
    assert by_glob == ["1.mp4", "2.mkv"]
    assert [each.uri for each in find_items(f"{tmp_path}/1.mp4", FetchConfig())] == [
        (tmp_path / "1.mp4").as_uri()
    ]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nothing", "nothing is neither a folder nor a file, and no glob"),
        ("*.mp4", r"no file matches \*.mp4"),
        (".", r"the folder . has no videos: no file in it ends with one of "),
        ("ftp://host/a", "ftp://host/a: unsupported URI"),
        ("https://host/a", "https://host/a cannot be listed; name a manifest of its URIs"),
    ],
)
def test_sources_without_videos_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnusableSource, match=says):
        list(find_items(source, FetchConfig()))


@pytest.mark.parametrize("source", ["s3://bucket/videos", "s3://bucket/list.csv"])
def test_a_bucket_without_the_library_for_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tubelet\[s3\]'"):
        list(find_items(source, FetchConfig()))


@pytest.mark.parametrize("source", ["s3://bucket/videos", "s3://bucket/list.csv"])
def test_a_store_that_does_not_answer_is_no_fault_of_the_source(source: str) -> None:
    closed = {"endpoint_url": "http://127.0.0.1:1", "key": "key", "secret": "secret"}
    with pytest.raises(OSError, match=f"^{source} cannot be read: Could not connect to the endpoint URL"):
        list(find_items(source, FetchConfig(options={"s3": closed})))
