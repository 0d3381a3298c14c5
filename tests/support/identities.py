"""A file of identities for tests, and tokens that are in it."""

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from tubelet.service.config.identities import Identity, IdentityTable
from tubelet.service.config.quotas import QuotasConfig

TOKENS = {name: f"tubelet_{name}-{'x' * 40}" for name in ("alice", "bob", "narrow", "prometheus", "mallory")}
"""Tokens by the names of their owners; mallory is not in the file."""

TABLES = """
["cert.example"]
models = ["camera-motion"]
rpcs = "all"

[narrow]
token_sha256 = ["{narrow}"]
models = ["vit:9"]
rpcs = ["ListModels", "GetModel", "Classify"]
uris = ["https://media.example.com/narrow/"]

[alice]
token_sha256 = ["{alice}"]
models = "all"
rpcs = "all"
uris = "all"

[prometheus]
token_sha256 = ["{prometheus}"]
metrics = true
"""


def hash_of(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def identity_with(name: str = "alice", **quotas: Any) -> Identity:
    """An identity with these quotas, and no other rights."""
    return Identity(name, IdentityTable(**quotas), QuotasConfig(**quotas) if quotas else None)


def bearer(name: str) -> tuple[tuple[str, str]]:
    """The metadata of a call of this identity."""
    return (("authorization", f"Bearer {TOKENS[name]}"),)


def write_identities(path: Path, tables: str = TABLES) -> Path:
    """Write the file, as a Secret is replaced: at once, and readable by its owner alone."""
    hashes = {name: hash_of(token) for name, token in TOKENS.items()}
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(tables.format(**hashes))
    os.replace(new, path)
    return path
