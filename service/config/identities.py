"""The file of identities: who may call, by which token or certificate, and what each of them may do.

    [alice]
    token_sha256 = ["b6a355aedfdd693a153c4b25c8e9bf4a4f0451325c6b50b4af71bc7056ac472c"]
    models = ["camera-motion"]
    rpcs = "all"
    videos_per_minute = 60

It holds hashes of tokens, never tokens. So no error repeats a value of the file.
"""

import hmac
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from tubelet.service.config.problems import BadConfig, closest
from tubelet.service.config.quotas import MOST, NO_QUOTAS, QuotasConfig
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.request import Priority
from tubelet.service.types.uri import Uri, is_covered, parse_prefix

Rpc = Literal["Classify", "ClassifyStreaming", "Explain", "ListModels", "GetModel"]
"""The RPCs of tubelet.v1.VideoClassifier."""
All = Literal["all"]
"""What stands in place of a list that restricts nothing."""

_NAME = re.compile(r"[!-~]{1,200}")  # visible ASCII: it stands in logs
_MAX_FILE_BYTES = 16 << 20
_HASH = r"^[0-9a-f]{64}$"
_PRIORITIES = ", ".join(f'"{priority.value}"' for priority in Priority)
_QUOTAS = ("videos_in_flight", "videos_per_minute", "bytes_per_day", "device_seconds_per_hour")
_SENTENCES = {
    "token_sha256": "must be a list of hashes, each of 64 digits 0 to 9 and a to f, as `tubelet token new` "
    "prints them",
    "models": 'must be "all", or a list of NAME and NAME:VERSION, such as ["camera-motion", "vit:2"]',
    "rpcs": f'must be "all", or a list of some of {", ".join(get_args(Rpc))}',
    "uris": 'must be "all", or a list of prefixes of URIs, such as ["s3://clips/alice/"]',
    "metrics": "must be true or false",
    "highest_priority": f"must be one of {_PRIORITIES}",
} | dict.fromkeys(_QUOTAS, f"must be a whole number, at least 0 and at most {MOST}")


class IdentityTable(QuotasConfig):
    """What the file says of one identity: what it may do, and how much of it.

    What is absent of the first is not allowed: so half a file opens no door. An absent quota is the default.
    """

    token_sha256: tuple[Annotated[str, Field(pattern=_HASH)], ...] = ()
    models: All | tuple[str, ...] = ()
    rpcs: All | tuple[Rpc, ...] = ()
    uris: All | tuple[str, ...] = ()
    metrics: bool = False

    @field_validator(*_QUOTAS, mode="before")
    @classmethod
    def _are_whole(cls, quota: object) -> object:
        """Check that the quota is no text, no fraction and no boolean."""
        if type(quota) is not int:
            raise ValueError("a quota is a whole number")
        return quota

    @field_validator("models")
    @classmethod
    def _are_references(cls, models: All | tuple[str, ...]) -> All | tuple[str, ...]:
        """Check that each text is NAME or NAME:VERSION."""
        for text in () if models == "all" else models:
            if not ModelRef.parse(text).name:
                raise ValueError("a model needs a name")
        return models

    @field_validator("uris")
    @classmethod
    def _are_prefixes(cls, uris: All | tuple[str, ...]) -> All | tuple[str, ...]:
        """Check that each text is a prefix of URIs."""
        for prefix in () if uris == "all" else uris:
            parse_prefix(prefix)
        return uris


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, and what they may do. The name is empty where nothing tells it.

    ``quotas`` are its own and the defaults; None where there are neither.
    """

    name: str
    allowed: IdentityTable
    quotas: QuotasConfig | None = None

    def may_call(self, rpc: str) -> bool:
        """Tell whether the identity may call the RPC."""
        return self.allowed.rpcs == "all" or rpc in self.allowed.rpcs

    def may_use(self, model: str, version: str = "") -> bool:
        """Tell whether the identity may use this version of the model; without a version, any of it."""
        if self.allowed.models == "all":
            return True
        allowed = map(ModelRef.parse, self.allowed.models)
        return any(ref.name == model and (not version or ref.version in ("", version)) for ref in allowed)

    def may_fetch(self, uri: Uri) -> bool:
        """Tell whether the identity may have the server read ``uri``."""
        return self.allowed.uris == "all" or is_covered(uri, map(parse_prefix, self.allowed.uris))


_EVERYTHING = IdentityTable(models="all", rpcs="all", uris="all", metrics=True)


def unrestricted(name: str = "") -> Identity:
    """Return an identity that may do all, for servers that ask nobody who calls."""
    return Identity(name, _EVERYTHING)


@dataclass(frozen=True, slots=True)
class Identities:
    """All identities of a file."""

    by_name: Mapping[str, Identity]
    _owners: tuple[tuple[bytes, str], ...] = field(repr=False)  # the hash of each token, and whose it is

    def of_name(self, name: str) -> Identity | None:
        """Return the identity with this name, given by a certificate or an issuer; None if there is none."""
        return self.by_name.get(name)

    def of_token(self, token: str) -> Identity | None:
        """Return the identity that has ``token``; None if none has.

        The time that this takes tells nothing of the hashes: each one is compared to its end.
        """
        found, wanted = "", sha256(token.encode()).hexdigest().encode()
        for known, name in self._owners:
            if hmac.compare_digest(known, wanted):
                found = name
        return self.by_name.get(found)


def parse_identities(content: bytes, path: Path, defaults: QuotasConfig = NO_QUOTAS) -> Identities:
    """Parse the content of the file at ``path``; ``defaults`` are the quotas that it does not set.

    Raises:
        BadConfig: it is not TOML, holds no identity, or what an identity has is wrong.
    """
    try:
        if len(content) > _MAX_FILE_BYTES:
            raise BadConfig(f"{path} has {len(content)} bytes; the limit is {_MAX_FILE_BYTES}")
        tables = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise BadConfig(f"{path} is not TOML: it is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{path} is not TOML, or only a part of it: {_without_names(str(error))}") from error
    if not tables:
        raise BadConfig(f"{path} holds no identity; `tubelet token new NAME --file {path}` adds one")
    identities = {name: _parse_identity(name, table, path, defaults) for name, table in tables.items()}
    owners: dict[str, str] = {}
    for name, identity in identities.items():
        for known in identity.allowed.token_sha256:
            if known in owners:
                raise BadConfig(f"{path}: [{owners[known]}] and [{name}] have the same hash of a token")
            owners[known] = name
    return Identities(identities, tuple((known.encode(), name) for known, name in owners.items()))


def check_name(name: str) -> None:
    """Check the name of an identity.

    Raises:
        ValueError: it is empty, too long, or has other characters than visible ASCII.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a name of an identity has 1 to 200 visible ASCII characters, and no space")


def _parse_identity(name: str, table: Any, path: Path, defaults: QuotasConfig) -> Identity:
    """Parse what the file says of one identity; raises as ``parse_identities`` does."""
    try:
        check_name(name)
    except ValueError as error:
        raise BadConfig(f"{path}: {error}") from error
    if not isinstance(table, dict):
        raise BadConfig(f"{path}: {name!r:.50} must be a table: [NAME], then its keys")
    try:
        allowed = IdentityTable.model_validate(table)
    except ValidationError as error:
        sentences = dict.fromkeys(_sentence(each["loc"]) for each in error.errors())
        raise BadConfig(*(f"{path}: [{name}] {sentence}" for sentence in sentences)) from None
    quotas = allowed.or_else(defaults)
    return Identity(name, allowed, quotas if quotas.are_set else None)


def _sentence(location: tuple[int | str, ...]) -> str:
    """Say what is wrong with the key at ``location``, without its value."""
    key = str(location[0])
    if key in _SENTENCES:
        return f"{key} {_SENTENCES[key]}"
    return f"{key:.50}: no such key{closest([key], IdentityTable.model_fields)}"


def _without_names(problem: str) -> str:
    """Return the place that tomllib names, without the text around it."""
    found = re.search(r"at line \d+, column \d+|at end of document", problem)
    return found[0] if found else "its syntax is wrong"
