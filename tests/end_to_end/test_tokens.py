"""Tokens of the clients and the command: how they are given, and that nothing repeats one."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest

from tests.support.cli_process import serving as serving_process
from tests.support.cli_process import tubelet
from tests.support.identities import TOKENS, write_identities
from tests.support.raw_http2 import LIST_MODELS, RawHttp2
from tests.support.running_server import Served, serving
from tests.support.sample_clip import panning_clip
from tubelet.service.client import AsyncClient, Client, ServerError, Token
from tubelet.service.config.config import load_config
from tubelet.service.config.problems import BadConfig
from tubelet.service.types.token import BadToken

ALICE = TOKENS["alice"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = write_identities(tmp_path_factory.mktemp("access") / "identities.toml")
    with serving(server={"access": {"identities": str(file)}}) as served:
        yield served


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "alice.token"
    file.write_text(f"{ALICE}\n")
    return file


def code_of(client: Client) -> str:
    try:
        client.models()
    except ServerError as error:
        return error.code
    return "OK"


def test_client_sends_its_token_with_every_call(guarded: Served) -> None:
    clip = panning_clip(2.0)
    with Client(guarded.target, token=ALICE) as client:
        assert client.classify(clip).labels[0].name == "pan_right"
        assert len(list(client.stream(clip))) > 1
        assert client.models()
        assert client.model("camera-motion").name == "camera-motion"
        client.models_not_loaded()


async def test_async_client_sends_its_token_with_every_call(guarded: Served) -> None:
    clip = panning_clip(2.0)
    async with AsyncClient(guarded.target, token=ALICE) as client:
        assert (await client.classify(clip)).labels[0].name == "pan_right"
        assert len([event async for event in client.stream(clip)]) > 1
        assert await client.models()


def test_a_file_is_read_for_each_call(guarded: Served, token_file: Path) -> None:
    with Client(guarded.target, token=Token(file=token_file)) as client:
        assert code_of(client) == "OK"
        token_file.write_text(TOKENS["mallory"])
        assert code_of(client) == "UNAUTHENTICATED"
        token_file.write_text(ALICE)
        assert code_of(client) == "OK"
        token_file.unlink()
        with pytest.raises(BadToken, match=r"cannot read the token in .*alice\.token: No such file"):
            client.models()


def test_the_environment_gives_a_token(
    guarded: Served, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUBELET_CLIENT__TOKEN", ALICE)
    with Client(guarded.target) as client:
        assert code_of(client) == "OK"
    with Client(guarded.target, token=TOKENS["mallory"]) as client:
        assert code_of(client) == "UNAUTHENTICATED"
    monkeypatch.setenv("TUBELET_CLIENT__TOKEN_FILE", str(token_file))
    with pytest.raises(BadToken, match="one of both"):
        Client(guarded.target)
    monkeypatch.delenv("TUBELET_CLIENT__TOKEN")
    with Client(guarded.target) as client:
        assert code_of(client) == "OK"


def test_without_a_token_the_server_says_what_it_wants(guarded: Served) -> None:
    with (
        Client(guarded.target) as client,
        pytest.raises(ServerError, match="this server wants to know") as caught,
    ):
        client.classify(panning_clip(1.0))
    assert (caught.value.code, caught.value.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


@pytest.mark.parametrize("content", ["", " \n", f"{ALICE} {ALICE}", f"{ALICE}\n{ALICE}", "tökén", "x" * 5000])
def test_a_file_without_a_token_is_a_sentence(guarded: Served, token_file: Path, content: str) -> None:
    token_file.write_text(content)
    with Client(guarded.target, token=Token(file=token_file)) as client, pytest.raises(BadToken) as caught:
        client.models()
    assert str(caught.value).startswith(f"{token_file}: a token ")
    assert ALICE not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "is_local"),
    [
        ("localhost", True),
        ("127.0.0.1:1", True),
        ("127.8.8.8", True),
        ("[::1]:1", True),
        ("dns:///localhost:1", True),
        ("unix:/run/tubelet.sock", True),
        ("tubelet:8500", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("dns:///tubelet:8500", False),
        ("ipv4:10.0.0.1:8500", False),
    ],
)
def test_a_token_crosses_no_network_without_tls(
    monkeypatch: pytest.MonkeyPatch, target: str, is_local: bool
) -> None:
    if is_local:
        Client(target, token=ALICE)
        return
    for tls in (None, False):
        with pytest.raises(BadToken, match="could read the token") as caught:
            Client(target, token=ALICE, tls=tls)
        assert ALICE not in str(caught.value)
    Client(target, token=ALICE, tls=True)
    Client(target, token=Token(ALICE, is_plain=True))
    monkeypatch.setenv("TUBELET_CLIENT__TOKEN", ALICE)
    monkeypatch.setenv("TUBELET_CLIENT__PLAIN_TOKEN", "1")
    Client(target)


def test_repr_has_no_token() -> None:
    assert ALICE not in repr(Token(ALICE))
    assert ALICE not in repr(load_config(client={"token": ALICE}))


@pytest.mark.parametrize(
    "client", [{"token": [ALICE]}, {"token": ALICE, "token_file": "x"}, {"tokne": ALICE}]
)
def test_no_error_of_the_configuration_repeats_a_token(client: dict[str, object]) -> None:
    with pytest.raises(BadConfig) as caught:
        load_config(client=client)
    assert ALICE not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "environment", "flags", "text", "token_file"),
    [
        ("", {"TOKEN": "env"}, {"token_file": Path("flag")}, "", Path("flag")),
        ("", {"TOKEN_FILE": "env"}, {"token": "flag"}, "flag", None),
        ('token = "file"', {"TOKEN_FILE": "env"}, {}, "", Path("env")),
        ('token_file = "file"', {"TOKEN": "env"}, {}, "env", None),
        ('token_file = "file"', {"TOKEN": ""}, {}, "", Path("file")),
        ('token = "file"', {"TOKEN": "env"}, {"token_file": Path("flag")}, "", Path("flag")),
        ('token_file = "file"', {"CA": "env"}, {"ca": Path("flag")}, "", Path("file")),
    ],
)
def test_a_token_of_the_stronger_source_is_sent_in_whichever_form(
    file: str,
    environment: dict[str, str],
    flags: dict[str, object],
    text: str,
    token_file: Path | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "tubelet.toml"
    path.write_text(f"[client]\n{file}\n")
    for key, value in environment.items():
        monkeypatch.setenv(f"TUBELET_CLIENT__{key}", value)
    token = load_config(path, client=flags).client.chosen_token
    assert token == Token(text, token_file)


def test_two_tokens_of_one_source_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_CLIENT__TOKEN", ALICE)
    monkeypatch.setenv("TUBELET_CLIENT__TOKEN_FILE", "alice.token")
    with pytest.raises(BadConfig, match="token and token_file exclude each other"):
        load_config()


def test_the_command_sends_a_token(guarded: Served, token_file: Path) -> None:
    """A wrong one ends it, however many videos there are."""
    other = token_file.with_name("other")
    other.write_bytes(b"not a video")
    clips = [str(token_file), str(other)]
    server = ("models", "list", "--json", "--server", guarded.target)
    for given in (("--token-file", str(token_file)), ("--token", ALICE)):
        done = tubelet(*server, *given)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[0])["model"] == "camera-motion"
    for done, said in (
        (tubelet(*server), "this server wants to know who calls"),
        (tubelet(*server, "--token", TOKENS["mallory"]), "this server does not know the token"),
        (tubelet(*server, "--token-file", "/nonexistent"), "cannot read the token in /nonexistent"),
        (tubelet("models", "list", "--server", "tubelet.example", "--token", ALICE), "could read the token"),
        (tubelet("models", "list", "--token", ALICE), "--token needs --server"),
        (tubelet("classify", *clips, *server[-2:], "--token", TOKENS["mallory"]), "does not know the token"),
        (tubelet("classify", *clips, *server[-2:], "--token-file", str(other)), "a token is one word"),
    ):
        assert done.returncode != 0
        assert said in " ".join(done.stderr.replace("│", " ").split())
        assert not any(token in done.stderr + done.stdout for token in TOKENS.values())
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr


def test_errors_of_the_command_have_the_request_id(guarded: Served, token_file: Path) -> None:
    """That of a video, and that of a whole command, in text and in JSON."""
    command = ("classify", str(token_file), "--json", "--server", guarded.target)
    for given in (("--token-file", str(token_file)), ("--token", TOKENS["mallory"])):
        done = tubelet(*command, *given)
        (answer,) = map(json.loads, done.stdout.splitlines())
        assert f"request id {answer['error']['request_id']})" in done.stderr
    done = tubelet("models", "list", "--json", "--server", "127.0.0.1:1")
    assert "request_id" not in json.loads(done.stdout)["error"]
    assert "request id" not in done.stderr


def test_config_masks_a_token() -> None:
    done = tubelet("config", TUBELET_CLIENT__TOKEN=ALICE)
    assert done.returncode == 0, done.stderr
    assert "TUBELET_CLIENT__TOKEN" in done.stdout
    assert ALICE not in done.stdout + done.stderr


def test_the_log_of_a_server_has_no_token_and_says_who_called(tmp_path: Path) -> None:
    """At the level debug, with every kind of call, a reload and a wrong file."""
    file, log = write_identities(tmp_path / "identities.toml"), tmp_path / "log"
    variables = {
        "TUBELET_SERVER__HOST": "localhost",
        "TUBELET_SERVER__ACCESS__IDENTITIES": str(file),
        "TUBELET_LOG__LEVEL": "debug",
    }
    with log.open("w") as stream, serving_process(log=stream, **variables) as (process, target):
        port = target.rpartition(":")[2]
        said: list[str] = []
        for token in (ALICE, TOKENS["narrow"], TOKENS["mallory"], None):
            with Client(f"localhost:{port}", token=token) as client:
                for call in (client.models, lambda client=client: client.classify(b"not a video")):
                    try:
                        call()
                    except ServerError as error:
                        said.append(repr(vars(error)))
        with RawHttp2(int(port)) as connection:  # gRPC's own record would repeat it
            header = (b"authorization", f"Bearer {ALICE}".encode() + b"\xff")
            assert connection.answer(connection.call(LIST_MODELS, (header,))).status == 16
        before = log.read_text()
        write_identities(file, f'[alice]\ntoken_sha256 = ["{ALICE}"]\n')
        process.send_signal(signal.SIGHUP)
        while "model reload complete" not in (after := log.read_text().removeprefix(before)):
            assert process.poll() is None
            sleep(0.05)
    assert "the identities in use stay" in after.partition("reloading the models")[0]
    text = log.read_text()
    assert len(said) == 6
    assert "identity=alice" in text
    assert "identity=narrow" in text
    assert "reason=UNAUTHENTICATED" in text
    assert not any(token in each for token in TOKENS.values() for each in (text, *said))
