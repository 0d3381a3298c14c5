"""A fuzzing campaign of the files that say who may call: certificates, keys, authorities, hashes of tokens.

What is read must be refused in a sentence, or work: each certificate that is accepted makes a handshake.
"""

import base64
import gc
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal, get_args

import psutil

from tests.fuzz.mutate import mutant
from tests.support.certificates import Authority, encrypted, self_signed
from tests.support.identities import TOKENS, write_identities
from tests.support.issuer import AUDIENCE, ISSUER, Issuer
from tubelet.service.config.identities import parse_identities
from tubelet.service.config.jwt import JwtConfig
from tubelet.service.config.problems import BadConfig
from tubelet.service.config.tls import TlsConfig
from tubelet.service.rpc.issued_tokens import IssuedTokens
from tubelet.service.server.certificates import Credentials, read_credentials

Role = Literal["certificate", "key", "client_ca", "identities", "jwks"]
ROLES: tuple[Role, ...] = get_args(Role)

_OF_TLS: tuple[Role, ...] = ("certificate", "key", "client_ca")
_HOST = "localhost"
_MOST_CHARACTERS = 2000  # of an error


@dataclass(slots=True)
class FileReport:
    """The outcomes by file, what was wrong by seed, and what the process has kept."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)
    rss_bytes: list[int] = field(default_factory=list)
    leaked_descriptors: int = 0


class Files:
    """Sound files in a folder, of which one at a time is changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        authority, other = Authority(folder / "authority"), Authority(folder / "other")
        pair, own = authority.issue(_HOST), self_signed(folder, _HOST)
        self._issuer = Issuer()
        self._sound: dict[Role, list[bytes]] = {
            "certificate": [each.certificate.read_bytes() for each in (pair, own, other.issue(_HOST))],
            "key": [each.read_bytes() for each in (pair.key, own.key, encrypted(pair.key))],
            "client_ca": [authority.ca.read_bytes(), authority.ca.read_bytes() + other.ca.read_bytes()],
            "identities": [write_identities(folder / "identities.toml").read_bytes()],
            "jwks": [self._issuer.jwks()],
        }
        self._secrets = [self._sound["key"][0].splitlines()[1].decode(), *TOKENS.values()]

    def try_one(self, seed: int) -> str:
        """Read the files of a seed; return the outcome.

        Raises:
            AssertionError: something is wrong; so is any other error.
        """
        chance = Random(seed)
        role = chance.choice(ROLES)
        content = mutant(self._sound[role], seed)
        if role in _OF_TLS and chance.random() < 0.7:
            content = _changed_inside(chance.choice(self._sound[role]), chance)
        try:
            match role:
                case "identities":
                    known = parse_identities(content, self._folder / "identities.toml")
                    assert known.of_token(TOKENS["mallory"]) is None
                case "jwks":
                    self._read_keys(content)
                case _:
                    self._handshake(self._credentials(role, content))
        except BadConfig as error:
            text = str(error)
            assert len(text) < _MOST_CHARACTERS
            assert not any(secret in text for secret in self._secrets)
            return f"{role}: refused"
        return f"{role}: used"

    def _read_keys(self, content: bytes) -> None:
        """Read the keys of an issuer; tokens of another one must stay wrong."""
        tokens = IssuedTokens(JwtConfig(issuer=ISSUER, audience=AUDIENCE, keys="keys"))
        try:
            tokens.use_keys(content)
        except ValueError as error:
            raise BadConfig(str(error)) from error
        for token, is_right in ((self._issuer.token(), True), (Issuer("x").ec_token(), False)):
            try:
                assert tokens.name_of(token) == "alice"
                assert is_right
            except ValueError:
                pass

    def _credentials(self, role: Role, content: bytes) -> Credentials:
        """Read the three files of a server, one of them with this content."""
        paths: dict[Role, Path] = {each: self._folder / each for each in _OF_TLS}
        for each, path in paths.items():
            path.write_bytes(content if each == role else self._sound[each][0])
        return read_credentials(TlsConfig.model_validate(paths), None)

    def _handshake(self, used: Credentials) -> None:
        """Make a handshake with what was accepted, and describe it as the log does."""
        assert used.expiries()
        assert used.description  # which the log escapes
        for with_client_ca in (False, True):
            assert used.grpc_configuration(with_client_ca=with_client_ca)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # its signature may be wrong
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server, server_hostname=_HOST)
        server = used.http.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(3):
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        assert client.version() in ("TLSv1.2", "TLSv1.3")


def _changed_inside(pem: bytes, chance: Random) -> bytes:
    """Change bytes of what is encoded in one block of a PEM file, which stays a PEM file."""
    blocks = pem.split(b"-----BEGIN ")[1:]
    place = chance.randrange(len(blocks))
    name, _, rest = blocks[place].partition(b"-----")
    content = base64.b64decode(rest.partition(b"-----")[0])
    lines = base64.encodebytes(mutant([content], chance.getrandbits(32)))
    blocks[place] = name + b"-----\n" + lines + b"-----END " + name + b"-----\n"
    return b"".join(b"-----BEGIN " + block for block in blocks)


def run_files(folder: Path, seeds: range, progress: Callable[[], None] = lambda: None) -> FileReport:
    """Read the files of each seed."""
    report, files = FileReport(), Files(folder)
    gc.collect()
    descriptors = psutil.Process().num_fds()
    for seed in seeds:
        try:
            report.outcomes[files.try_one(seed)] += 1
        except Exception as error:
            report.wrong[seed] = f"{error!r:.500}"
        if seed % 256 == 0:
            report.rss_bytes.append(psutil.Process().memory_info().rss)
        progress()
    gc.collect()
    report.leaked_descriptors = psutil.Process().num_fds() - descriptors
    return report
