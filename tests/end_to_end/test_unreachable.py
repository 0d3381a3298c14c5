"""A server that is missing, of another kind, or lost: one sentence, and earlier answers are kept."""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.support.breakable_connection import wire_to
from tests.support.cli_process import tubelet
from tests.support.running_server import Served, wait_until
from tests.support.sample_clip import panning_clip
from tubelet.service.cli.runs.runner import Answer, Failure, open_remote, run_as_completed
from tubelet.service.client import AsyncClient, Client, ServerError
from tubelet.service.server.app import SAMPLE_CLIP
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a port where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"localhost:{taken.getsockname()[1]}"


@contextmanager
def greeting(words: bytes) -> Iterator[str]:
    """The address of a service that speaks first, as SSH does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(words)
                connection.recv(1 << 16)

        thread = threading.Thread(target=greet)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@contextmanager
def other_grpc() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def refusal(target: str) -> ServerError:
    with Client(target) as client, pytest.raises(ServerError) as caught:
        client.models()
    assert caught.value.reason == "SERVER_UNREACHABLE"
    return caught.value


def test_classify_names_an_unreachable_server_once(nobody: str) -> None:
    videos = [str(SAMPLE_CLIP)] * 7
    says = f"no tubelet server answers at {nobody}; is `tubelet serve` running?"
    done = tubelet("classify", *videos, "--server", nobody)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (1, "", says)
    done = tubelet("classify", *videos, "--server", f"http://{nobody}/", "--json")
    assert (done.returncode, done.stderr.strip()) == (1, says)
    error = {"code": "UNAVAILABLE", "reason": "SERVER_UNREACHABLE", "message": says}
    assert json.loads(done.stdout) == {"error": error}


def test_evaluate_and_models_list_name_an_unreachable_server(nobody: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"{SAMPLE_CLIP},static\n")
    data = ("evaluate", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out"))
    for command in (data, ("models", "list")):
        done = tubelet(*command, "--server", nobody)
        says = f"no tubelet server answers at {nobody}; is `tubelet serve` running?\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", says)


async def test_both_clients_name_an_unreachable_server(nobody: str) -> None:
    says = f"no tubelet server answers at {nobody}; is `tubelet serve` running?"
    error = await asyncio.to_thread(refusal, nobody)
    assert (error.code, error.message) == ("UNAVAILABLE", says)
    async with AsyncClient(nobody) as client:
        with pytest.raises(ServerError, match="no tubelet server answers"):
            await client.classify(panning_clip(1.0))
        with pytest.raises(ServerError, match="no tubelet server answers"):
            _ = [event async for event in client.stream(panning_clip(1.0))]
        with pytest.raises(ServerError, match="no tubelet server answers"):
            await client.models()


def test_the_metrics_port_is_recognised(served: Served) -> None:
    target = f"127.0.0.1:{served.server.metrics_port}"
    says = f"{target} answers HTTP, not gRPC: this looks like the metrics port; the gRPC port is 8500"
    assert refusal(target).message.startswith(says)


def test_other_servers_are_recognised() -> None:
    with greeting(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as target:
        assert "answers HTTP, not gRPC" in refusal(target).message
    with greeting(b"SSH-2.0-OpenSSH_9.6\r\n") as target:
        assert "does not speak gRPC" in refusal(target).message
    with other_grpc() as target:
        assert f"the server at {target} is not a tubelet server" in refusal(target).message


def test_proxy_variable_is_named(nobody: str) -> None:
    proxy = {"https_proxy": f"http://{nobody}", "no_proxy": "", "no_grpc_proxy": "", "grpc_proxy": ""}
    done = tubelet("models", "list", "--server", "localhost:8500", **proxy)
    says = "https_proxy is set: no_proxy must name servers that are not behind that proxy"
    assert done.stderr == f"no tubelet server answers at localhost:8500; {says}\n"


def test_unresolvable_name_is_reported() -> None:
    says = "the name nobody.invalid of the server nobody.invalid:8500 cannot be resolved"
    assert refusal("nobody.invalid").message == says


async def test_answers_before_the_server_was_lost_are_kept(served: Served, tmp_path: Path) -> None:
    clip, waiting = tmp_path / "clip.mp4", tmp_path / "waiting.mp4"
    clip.write_bytes(panning_clip(1.0))
    os.mkfifo(waiting)
    held = os.open(waiting, os.O_RDWR)  # so that its readers wait for more
    videos = [(str(each), Options()) for each in (waiting, clip, clip, waiting)]
    answered = {"name": "tubelet_requests_total", "method": "ClassifyStreaming", "code": "OK"}
    before = served.metric(**answered)
    answers: list[Answer] = []

    async def ask_them(target: str) -> None:
        async with open_remote(target) as classify_video:
            async for _, item in run_as_completed(classify_video, videos, 4):
                if isinstance(item, Classification | Failure):
                    answers.append(item)

    async with wire_to(served.server.port) as wire:
        asking = asyncio.create_task(ask_them(wire.target))
        await asyncio.to_thread(wait_until, served, value=before + 2, **answered)
        await wire.cut()
        with pytest.raises(ServerError, match="no tubelet server answers"):
            await asking
    os.close(held)
    assert [type(answer) for answer in answers] == [Classification, Classification]


async def test_video_is_sent_once_more_after_a_lost_connection(served: Served, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(panning_clip(2.0))

    async def answer(breaks: int) -> tuple[Answer, int]:
        async with wire_to(served.server.port, breaks) as wire, open_remote(wire.target) as classify_video:
            *_, (_, found) = [
                each async for each in run_as_completed(classify_video, [(str(clip), Options())], 1)
            ]
            assert isinstance(found, Classification | Failure)
            return found, wire.connections

    found, connections = await answer(breaks=1)
    assert (type(found), connections) == (Classification, 2)
    found, connections = await answer(breaks=3)
    assert isinstance(found, Failure)
    assert (found.code, found.reason, connections) == ("UNAVAILABLE", "CONNECTION_LOST", 2)
    assert found.message.startswith("the connection to 127.0.0.1:")
