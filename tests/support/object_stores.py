"""Object stores on this machine: S3 by moto, Google Cloud Storage by its emulator."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest
from s3fs import S3FileSystem


@contextmanager
def s3_server(bucket: str) -> Iterator[dict[str, Any]]:
    """Run a server with the interface of S3 that has a bucket; yield fsspec's options for it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options: dict[str, Any] = {"endpoint_url": f"http://{host}:{port}", "key": "key", "secret": "secret"}
    try:
        # All servers of a process share their buckets.
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
        S3FileSystem(**options, skip_instance_cache=True).mkdir(bucket)
        yield options
    finally:
        server.stop()


@contextmanager
def gs_server(bucket: str) -> Iterator[dict[str, Any]]:
    """Run an emulator of Cloud Storage that has a bucket; yield fsspec's options for it.

    It ignores preconditions.
    """
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket=bucket)
    server.start()
    try:
        port = server._api._httpd.socket.getsockname()[1]
        yield {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon"}
    finally:
        server.stop()
