"""Files of ``server.tls``: right ones are described, and each wrong one is a sentence."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.certificates import FUTURE, PAST, Authority, Pair, encrypted, self_signed
from tubelet.service.config.problems import BadConfig
from tubelet.service.config.tls import TlsConfig
from tubelet.service.server.certificates import read_credentials


@dataclass(frozen=True, slots=True)
class Case:
    """An authority, a pair that is right, and a folder for files that are not."""

    authority: Authority
    pair: Pair
    folder: Path

    def write(self, content: bytes) -> Path:
        """Write a file."""
        path = self.folder / "written"
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder / "authority")
    return Case(authority, authority.issue("a.example", "10.0.0.1"), folder)


def config_of(pair: Pair, client_ca: Path | None = None) -> TlsConfig:
    return TlsConfig(certificate=pair.certificate, key=pair.key, client_ca=client_ca)


def half(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: len(content) // 2]


WRONG: dict[str, tuple[Callable[[Case], TlsConfig], str]] = {
    "no certificate file": (
        lambda case: config_of(Pair(Path("/nowhere"), case.pair.key)),
        "server.tls.certificate: cannot read /nowhere: No such file or directory",
    ),
    "a folder as key": (
        lambda case: config_of(Pair(case.pair.certificate, case.folder)),
        "server.tls.key: cannot read FOLDER: Is a directory",
    ),
    "certificate half written": (
        lambda case: config_of(Pair(case.write(half(case.pair.certificate)), case.pair.key)),
        "server.tls.certificate: WRITTEN holds no certificate in PEM form, or only a part of one",
    ),
    "second certificate half written": (
        lambda case: config_of(
            Pair(case.write(case.pair.certificate.read_bytes() + half(case.pair.certificate)), case.pair.key)
        ),
        "server.tls.certificate: WRITTEN holds no certificate in PEM form, or only a part of one",
    ),
    "empty certificate": (
        lambda case: config_of(Pair(case.write(b""), case.pair.key)),
        "server.tls.certificate: WRITTEN holds no certificate in PEM form, or only a part of one",
    ),
    "files exchanged": (
        lambda case: config_of(Pair(case.pair.key, case.pair.certificate)),
        "server.tls.certificate: KEY holds no certificate in PEM form, or only a part of one",
    ),
    "key half written": (
        lambda case: config_of(Pair(case.pair.certificate, case.write(half(case.pair.key)))),
        "server.tls.key: WRITTEN holds no private key in PEM form, or only a part of one",
    ),
    "bytes as key": (
        lambda case: config_of(Pair(case.pair.certificate, case.write(bytes(range(256))))),
        "server.tls.key: WRITTEN holds no private key in PEM form, or only a part of one",
    ),
    "encrypted key": (
        lambda case: config_of(Pair(case.pair.certificate, encrypted(case.pair.key))),
        "is encrypted: give it without a passphrase (openssl pkey -in FILE -out PLAIN)",
    ),
    "key of another certificate": (
        lambda case: config_of(Pair(case.pair.certificate, case.authority.issue("a.example").key)),
        "does not belong to the certificate",
    ),
    "expired": (
        lambda case: config_of(
            case.authority.issue("a.example", not_before=PAST, not_after=PAST.replace(month=3))
        ),
        "expired at 2020-03-01 00:00 UTC; renew it",
    ),
    "not yet valid": (
        lambda case: config_of(
            case.authority.issue("a.example", not_before=FUTURE, not_after=FUTURE.replace(month=3))
        ),
        "is not valid before 2200-01-01 00:00 UTC; is the clock right?",
    ),
    "weak key": (
        lambda case: config_of(self_signed(case.folder, "a.example", "-newkey", "rsa:1024")),
        "is too weak",
    ),
    "a key as client_ca": (
        lambda case: config_of(case.pair, case.pair.key),
        "server.tls.client_ca: KEY holds no certificate in PEM form, or only a part of one",
    ),
    "expired client_ca": (
        lambda case: config_of(
            case.pair,
            case.authority.issue("ca", not_before=PAST, not_after=PAST.replace(month=3)).certificate,
        ),
        "expired at 2020-03-01 00:00 UTC; renew it",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file_is_a_sentence(case: Case, name: str) -> None:
    make, says = WRONG[name]
    names = {
        "FOLDER": case.folder,
        "WRITTEN": case.folder / "written",
        "KEY": case.pair.key,
    }
    for word, path in names.items():
        says = says.replace(word, str(path))
    with pytest.raises(BadConfig) as caught:
        read_credentials(make(case), None)
    (problem,) = caught.value.problems
    assert problem.startswith("server.tls.")
    assert says in problem
    assert "\n" not in problem


def test_right_files_are_described(case: Case) -> None:
    credentials = read_credentials(config_of(case.pair), None)
    assert credentials.description.startswith("for a.example, 10.0.0.1, signed by ")
    assert set(credentials.expiries()) == {"server"}
    assert credentials.expiries()["server"] > datetime.now(UTC)


def test_self_signed_certificate_is_described(tmp_path: Path) -> None:
    credentials = read_credentials(config_of(self_signed(tmp_path, "a.example")), None)
    assert "for a.example, signed by itself, so that clients need it as their ca" in credentials.description


def test_unchanged_files_give_what_is_known(case: Case) -> None:
    config = config_of(case.pair, case.authority.ca)
    known = read_credentials(config, None)
    assert read_credentials(config, known) is known
    assert set(known.expiries()) == {"server", "client_ca"}


def test_expired_authority_beside_a_valid_one_is_passed_over(case: Case) -> None:
    old = case.authority.issue("old", not_before=PAST, not_after=PAST.replace(month=3))
    both = case.write(old.certificate.read_bytes() + case.authority.ca.read_bytes())
    credentials = read_credentials(config_of(case.pair, both), None)
    assert credentials.expiries()["client_ca"] > datetime.now(UTC)
