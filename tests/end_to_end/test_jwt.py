"""Tokens of an issuer (JWT) over a real channel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.identities import TOKENS, write_identities
from tests.support.issuer import AUDIENCE, ISSUER, Issuer
from tests.support.running_server import serving
from tubelet.service.config.config import load_config
from tubelet.service.config.problems import BadConfig
from tubelet.service.wire.status import ServerError, from_rpc_error
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


def refusal(call: Callable[[], Any]) -> ServerError:
    """The error of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value, "server")


def test_tokens_of_an_issuer_are_identities_of_the_file(tmp_path: Path) -> None:
    issuer, file, keys = Issuer(), write_identities(tmp_path / "identities.toml"), tmp_path / "keys.json"
    keys.write_bytes(issuer.jwks())
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "keys": str(keys)}
    with (
        serving(server={"access": {"identities": str(file), "jwt": jwt}}) as served,
        grpc.insecure_channel(served.target) as channel,
    ):
        stub = VideoClassifierStub(channel)

        def ask(token: str) -> Any:
            return stub.GetModel(
                pb.GetModelRequest(name="camera-motion"), metadata=(("authorization", f"Bearer {token}"),)
            )

        assert ask(issuer.token()).model.name == "camera-motion"
        assert ask(TOKENS["alice"]).model.name == "camera-motion"
        assert refusal(lambda: ask(issuer.token(sub="narrow"))).reason == "MODEL_NOT_ALLOWED"
        for token, said in (
            (issuer.token(sub="stranger"), "this server does not know 'stranger'"),
            (issuer.token(exp=1), "the token has expired"),
            (issuer.token(aud="other"), "another audience"),
            (Issuer().token(), "the signature of the token is wrong"),
            ("a.b.c", "the token is malformed"),
        ):
            error = refusal(lambda token=token: ask(token))
            assert (error.code, error.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
            assert said in error.message
            assert token not in str(error)


def test_an_issuer_needs_a_file_of_identities() -> None:
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "keys": "keys.json"}
    with pytest.raises(BadConfig, match=r"jwt\.issuer needs server\.access\.identities"):
        load_config(server={"access": {"jwt": jwt}})


def test_keys_are_read_again_before_they_are_too_old() -> None:
    with pytest.raises(BadConfig, match="max_keys_age_s must be at least twice refresh_s"):
        load_config(server={"access": {"jwt": {"refresh_s": 300, "max_keys_age_s": 599}}})
    load_config(server={"access": {"jwt": {"refresh_s": 300, "max_keys_age_s": 600}}})
