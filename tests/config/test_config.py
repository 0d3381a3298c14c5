"""The configuration: which source beats which, and the errors of a wrong one."""

from pathlib import Path

import pytest

from tubelet.service.config.config import Config, load_config
from tubelet.service.config.problems import BadConfig
from tubelet.service.config.renamed import REMOVED_KEYS, RENAMED_KEYS
from tubelet.service.config.tls import TlsConfig
from tubelet.service.types.tls import Tls


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tubelet.toml"
    path.write_text("[server]\nport = 1\nmetrics_port = 1\ndrain_s = 1\n[upload]\nmax_bytes = 1\n")
    return path


def test_flags_beat_the_environment_which_beats_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_SERVER__METRICS_PORT", "2")
    monkeypatch.setenv("TUBELET_SERVER__PORT", "2")
    config = load_config(file, server={"port": 3})
    assert (config.server.port, config.server.metrics_port, config.server.drain_s) == (3, 2, 1)
    assert config.upload.max_bytes == 1
    assert config.server.max_videos_in_flight == Config().server.max_videos_in_flight


def test_unknown_key_is_refused(file: Path) -> None:
    file.write_text("[server]\nprot = 1\n")
    with pytest.raises(BadConfig, match=r"server\.prot"):
        load_config(file)


def test_each_error_is_a_sentence_that_names_the_key(file: Path) -> None:
    file.write_text(
        "[server]\ndrain_s = -5\nzzz = 1\n[upload]\ndirectory = '/nowhere'\n[models]\nload = 'a'\n"
        "[fetch]\nallowed_private_networks = ['x']\n[fetch.options]\ns3 = 'password'\n"
    )
    with pytest.raises(BadConfig) as caught:
        load_config(file)
    assert sorted(caught.value.problems) == [
        "fetch.allowed_private_networks.0: 'x' does not appear to be an IPv4 or IPv6 network; found 'x'",
        "fetch.options.s3: Input should be a table",
        "models.load: Input should be a list; found 'a'",
        "server.drain_s: Input should be greater than or equal to 0; found -5",
        "server.zzz: no such key",
        "upload.directory: not a writable directory; found '/nowhere'",
    ]


def test_error_of_a_whole_table_does_not_repeat_its_keys(file: Path) -> None:
    file.write_text("[server.tls]\ncertificate = 'a'\n[server.access.jwt]\nissuer = 'b'\n")
    with pytest.raises(BadConfig) as caught:
        load_config(file)
    assert caught.value.problems == (
        "server.tls: certificate and key need each other; only one of them is set",
        "server.access.jwt: issuer needs audience and keys",
    )


def test_wrong_algorithm_is_one_error(file: Path) -> None:
    file.write_text("[server.access.jwt]\nalgorithms = ['HS256']\n")
    with pytest.raises(BadConfig, match="found 'HS256'") as caught:
        load_config(file)
    assert len(caught.value.problems) == 1
    file.write_text("[server.access.jwt]\nalgorithms = []\n")
    with pytest.raises(BadConfig, match="at least one algorithm is needed"):
        load_config(file)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TUBELET_SERVRE__PORT", "1", r"no key begins with servre \(closest: server\)"),
        ("TUBELET_FETCH__ALLOW", "file:///a", r"a list is written as JSON, such as .*; found .file:///a."),
        ("tubelet_models__load", "a,b", "a list is written as JSON"),
        ("TUBELET_FETCH__OPTIONS", "password", "a table is written as JSON$"),
        ("TUBELET_SERVER", "1:2", "a table is written as JSON$"),
        ("TUBELET_SERVER__TLS", "cert.pem", "a table is written as JSON$"),
    ],
)
def test_malformed_variable_is_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadConfig, match=f"^{name} in the environment: {says}"):
        load_config()


def test_error_of_a_value_names_the_variable_that_set_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("[decode]\nworkers = 0\n[models]\nzzz = 1\n[server]\ndrain_s = -1\n")
    monkeypatch.setenv("TUBELET_SERVER__DRAIN_S", "-5")
    monkeypatch.setenv("TUBELET_SERVER__PORT", "1")
    monkeypatch.setenv("TUBELET_SERVER", '{"port": 2}')
    monkeypatch.setenv("tubelet_upload__zzz", "1")
    monkeypatch.setenv("TUBELET_FETCH__OPTIONS", '{"ftp": {}}')
    monkeypatch.setenv("TUBELET_MODELS", '{"load": "a"}')
    with pytest.raises(BadConfig) as caught:
        load_config(file, server={"port": -1})
    assert sorted(caught.value.problems) == [
        "decode.workers: Input should be greater than or equal to 1; found 0",
        "fetch.options.ftp: Input should be 's3' or 'gs'; found 'ftp' "
        "(TUBELET_FETCH__OPTIONS in the environment)",
        "models.load: Input should be a list; found 'a' (TUBELET_MODELS in the environment)",
        "models.zzz: no such key",
        "server.drain_s: Input should be greater than or equal to 0; found '-5' "
        "(TUBELET_SERVER__DRAIN_S in the environment)",
        "server.port: Input should be greater than or equal to 0; found -1",
        "upload.zzz: no such key (tubelet_upload__zzz in the environment)",
    ]


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_old_name_of_a_key_is_refused_with_its_new_one(
    file: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    table, key = old.split(".")
    file.write_text(f"[{table}]\n{key} = 1\n")
    with pytest.raises(BadConfig, match=f"^{old}: renamed to {new}$"):
        load_config(file)

    monkeypatch.setenv(f"TUBELET_{table}".upper(), f'{{"{key}": 1}}')
    with pytest.raises(BadConfig, match=rf"^{old}: renamed to {new} \(TUBELET_{table.upper()} in the env"):
        load_config()
    monkeypatch.delenv(f"TUBELET_{table}".upper())

    variable = f"TUBELET_{table}__{key}".upper()
    monkeypatch.setenv(variable, "1")
    renamed = f"TUBELET_{new.replace('.', '__')}".upper()
    with pytest.raises(BadConfig, match=f"^{variable} in the environment: renamed to {renamed}$"):
        load_config()


@pytest.mark.parametrize("removed", REMOVED_KEYS)
def test_removed_key_is_refused_with_the_reason(
    file: Path, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    table, key = removed.split(".")
    file.write_text(f"[{table}]\n{key} = 1\n")
    with pytest.raises(BadConfig, match=f"^{removed}: removed: {REMOVED_KEYS[removed]}$"):
        load_config(file)

    monkeypatch.setenv(f"TUBELET_{table}__{key}".upper(), "1")
    with pytest.raises(BadConfig, match=rf"^{removed}: removed: {REMOVED_KEYS[removed]} \(TUBELET_"):
        load_config()


@pytest.mark.parametrize("value", ["5", "[]", '"text"'])
def test_variable_of_a_table_must_hold_an_object(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TUBELET_SERVER", value)
    with pytest.raises(BadConfig, match=r"^server: Input should be a table \(TUBELET_SERVER in the env"):
        load_config()


def test_variables_hold_lists_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_FETCH__ALLOW", '["file:///a"]')
    monkeypatch.setenv("TUBELET_FETCH__ALLOWED_PRIVATE_NETWORKS", '["10.0.0.0/8"]')
    fetch = load_config().fetch
    assert fetch.allow == ("file:///a",)
    assert list(map(str, fetch.allowed_private_networks)) == ["10.0.0.0/8"]


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"nothing\.toml"):
        load_config(tmp_path / "nothing.toml")


def test_variables_set_keys_of_inner_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_SERVER__TLS", '{"certificate": "a.pem", "key": "b.pem"}')
    monkeypatch.setenv("TUBELET_SERVER__TLS__KEY", "c.pem")
    assert load_config().server.tls == TlsConfig(certificate=Path("a.pem"), key=Path("c.pem"))


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (
            "[server.tls]\nkey = 'a'",
            "server.tls: certificate and key need each other; only one of them is set",
        ),
        (
            "[server.tls]\nclient_ca = 'a'",
            "server.tls: client_ca needs a certificate and a key of the server",
        ),
        (
            "[server]\nmtls_port = 1",
            "server: mtls_port needs server.tls.client_ca, the authority of its clients",
        ),
        (
            "[server.tls]\ncertificat = 'a'",
            r"server.tls.certificat: no such key \(closest: server.tls.certificate\)",
        ),
        ("[client]\ncert = 'a'", "client: cert and key need each other; only one of them is set"),
    ],
)
def test_incomplete_tls_is_refused(file: Path, toml: str, says: str) -> None:
    file.write_text(toml)
    with pytest.raises(BadConfig, match=says):
        load_config(file)


@pytest.mark.parametrize(
    ("toml", "tls"),
    [
        ("", None),
        ("tls = false", None),
        ("tls = true", Tls()),
        ("ca = 'a'", Tls(ca=Path("a"))),
        ("server_name = 'a'", Tls(server_name="a")),
        ("cert = 'a'\nkey = 'b'", Tls(cert=Path("a"), key=Path("b"))),
    ],
)
def test_client_table_chooses_tls(file: Path, toml: str, tls: Tls | None) -> None:
    file.write_text(f"[client]\n{toml}")
    assert load_config(file).client.chosen == tls
