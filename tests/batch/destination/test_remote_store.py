"""Destinations in object stores: conditional puts, and stores that have none."""

from collections.abc import Iterator

import pytest

from tests.support.batches import PLAN, classified, item, shard_commits
from tests.support.object_stores import gs_server, s3_server
from tubelet.service.batch.destination.commit_log import ShardTaken
from tubelet.service.batch.destination.layout import DestinationMismatch, Layout, prepare
from tubelet.service.batch.destination.store import Store, UnusableDestination, open_store
from tubelet.service.config.config import FetchConfig


@pytest.fixture(scope="module")
def config() -> Iterator[FetchConfig]:
    with s3_server("corpus") as options:
        yield FetchConfig(options={"s3": options})


@pytest.fixture
def store(config: FetchConfig, request: pytest.FixtureRequest) -> Store:
    return open_store(f"s3://corpus/{request.node.name}/rows/", config)


def test_a_file_is_created_once(store: Store) -> None:
    store.create("a/1.json", b"first")
    with pytest.raises(FileExistsError):
        store.create("a/1.json", b"second")
    assert store.read("a/1.json") == b"first"
    store.put("a/1.json", b"third")
    store.put("b/2.json", b"")
    assert store.read("a/1.json") == b"third"
    assert list(store.names()) == ["a/1.json", "b/2.json"]
    assert list(store.names("a")) == ["a/1.json"]
    for _ in range(2):
        store.delete("a/1.json")
    with pytest.raises(FileNotFoundError):
        store.read("a/1.json")


def test_commits_in_a_bucket_shut_out_an_earlier_run(store: Store) -> None:
    prepare(store, PLAN, Layout(1, "parquet"), may_add=False)
    runs = [shard_commits(store), shard_commits(store)]
    runs[0].read()
    runs[0].take()
    runs[0].commit([classified(1)])
    runs[1].read()
    runs[1].take()
    with pytest.raises(ShardTaken):
        runs[0].commit([classified(2)])
    runs[1].commit([classified(2)])
    assert runs[1].done == {item(1).id, item(2).id}
    runs[1].remove_leftovers()
    assert len([name for name in store.names() if name.endswith(".parquet")]) == 4


def test_errors_of_a_store_are_sentences(config: FetchConfig) -> None:
    with pytest.raises(
        OSError, match=r"cannot write s3://nothing/rows/x: The specified bucket does not exist"
    ):
        open_store("s3://nothing/rows", config).put("x", b"")
    where = {"endpoint_url": "http://127.0.0.1:1", "key": "key", "secret": "secret"}
    once = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    gone = FetchConfig(options={"s3": where | once})
    with pytest.raises(OSError, match=r"cannot write s3://corpus/rows/x: Could not connect"):
        open_store("s3://corpus/rows", gone).put("x", b"")
    with pytest.raises(UnusableDestination, match=r"https://host/rows cannot be written; name a folder"):
        open_store("https://host/rows", config)


def test_a_store_without_conditional_puts_is_refused() -> None:
    with gs_server("corpus") as options:
        store = open_store("gs://corpus/rows", FetchConfig(options={"gs": options}))
        with pytest.raises(DestinationMismatch, match="overwrites files that it is told to create"):
            prepare(store, PLAN, Layout(1, "parquet"), may_add=False)
        assert store.read("_tubelet/batch.json")
