"""``tubelet config``: every value and its origin."""

import json
import subprocess
import sys
import tomllib
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tubelet.service.cli.app import app
from tubelet.service.config.config import load_config

FILE = """
[server]
port = 1
drain_s = 5.0
[fetch.options.s3]
endpoint_url = "https://objects.example.com"
secret = "hush"
anon = false
client_kwargs = {region_name = "eu", aws_session_token = "hush"}
[models]
load = ["vit:1"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tubelet.toml"
    path.write_text(FILE)
    return path


def printed(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["config", *map(str, arguments)])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def rows(*arguments: object) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in printed(*arguments, "--json").splitlines()]
    return {row.pop("key"): row for row in found}


def test_config_names_the_origin_of_each_value(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_SERVER__METRICS_PORT", "2")
    monkeypatch.setenv("TUBELET_SERVER", '{"metrics_port": 3, "retry_after_s": 9}')
    monkeypatch.setenv("tubelet_models__load", '["vit:2"]')
    monkeypatch.setenv("TUBELET_FETCH__OPTIONS", '{"s3": {"anon": true}}')
    found = rows("--config", file, "--port", "4")
    assert found["server.port"] == {"value": 4, "default": 8500, "origin": "flag", "source": "--port"}
    assert found["server.metrics_port"] == {
        "value": 2,
        "default": 8502,
        "origin": "environment",
        "source": "TUBELET_SERVER__METRICS_PORT",
    }
    assert found["server.retry_after_s"]["source"] == "TUBELET_SERVER"
    assert found["server.drain_s"] == {"value": 5, "default": 30, "origin": "file", "source": str(file)}
    assert found["models.load"]["source"] == "tubelet_models__load"
    assert found["fetch.options.s3.anon"]["source"] == "TUBELET_FETCH__OPTIONS"
    assert found["fetch.options.s3.endpoint_url"]["source"] == str(file)
    assert found["upload.max_bytes"] == {
        "value": 2 << 30,
        "default": 2 << 30,
        "origin": "default",
        "source": "",
    }


def test_a_token_that_another_one_beats_has_no_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tubelet.toml"
    file.write_text('[client]\ntoken_file = "alice.token"\n')
    assert rows("--config", file)["client.token_file"]["origin"] == "file"
    monkeypatch.setenv("TUBELET_CLIENT__TOKEN", "secret")
    found = rows("--config", file)
    assert found["client.token"]["source"] == "TUBELET_CLIENT__TOKEN"
    assert found["client.token_file"] == {"value": None, "default": None, "origin": "default", "source": ""}


def test_config_equals_what_a_server_reads(file: Path) -> None:
    config = load_config(file).model_dump(mode="json")
    for key, row in rows("--config", file).items():
        if not key.startswith("fetch.options"):
            *tables, name = key.split(".")
            table = reduce(lambda found, part: found[part], tables, config)
            assert table.pop(name) == row["value"]
    assert config["server"].pop("tls") == {}
    assert config["server"].pop("access") == {"jwt": {}, "quotas": {}}
    assert {stage: left for stage, left in config.items() if left} == {
        "fetch": {"options": config["fetch"]["options"]}
    }


def test_config_output_is_a_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the same values; an unset one is a comment."""
    monkeypatch.setenv("TUBELET_FETCH__ALLOW", '["https://a.example/ü", "s3://b"]')
    monkeypatch.setenv("TUBELET_MODELS__DEFAULT", "camera-motion:1.1.0")
    config, text = load_config(), printed()
    assert 'default = "camera-motion:1.1.0"' in text
    assert '# environment TUBELET_MODELS__DEFAULT; default: "camera-motion"' in text
    assert "# threads is not set" in text
    for name in ("TUBELET_FETCH__ALLOW", "TUBELET_MODELS__DEFAULT", "TUBELET_MODELS__STORE"):
        monkeypatch.delenv(name)
    again = tmp_path / "again.toml"
    again.write_text(text)
    assert load_config(again).model_dump() == config.model_dump()


def test_quotas_are_said_to_count_in_each_replica() -> None:
    text = printed()
    assert "[server.access.quotas]  # of each identity; each replica counts for itself\n" in text
    assert tomllib.loads(text)["server"]["access"]["quotas"] == {}


def test_secrets_are_masked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_FETCH__OPTIONS", '{"gs": {"token": {"private_key": "hush"}, "project": "p"}}')
    for text in (printed("--config", file), printed("--config", file, "--json")):
        assert "hush" not in text
    options = tomllib.loads(printed("--config", file))["fetch"]["options"]
    assert options == {
        "s3": {
            "endpoint_url": "https://objects.example.com",
            "secret": "***",
            "anon": False,
            "client_kwargs": {"region_name": "eu", "aws_session_token": "***"},
        },
        "gs": {"token": {"private_key": "***"}, "project": "p"},
    }
    file.write_text('[fetch.options.s3]\nendpoint_url = "https://me:hush@objects.example.com"\n')
    assert "hush" not in printed("--config", file)


def test_invalid_configuration_is_one_sentence(file: Path) -> None:
    file.write_text("[server]\nprt = 1\n")
    done = CliRunner().invoke(app, ["config", "--config", str(file), "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["reason"] == "INVALID_CONFIGURATION"
    assert "server.prt: no such key (closest: server.port)" in done.stderr


def test_config_imports_neither_torch_nor_pyav() -> None:
    program = (
        "import sys; from tubelet.service.cli.app import app; app(['config'], standalone_mode=False); "
        "assert not {'torch', 'av', 'grpc'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "[server]" in done.stdout
