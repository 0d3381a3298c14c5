"""``tubelet token``: makes tokens, and puts their hashes into a file of identities."""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tubelet.service.cli.errors import report_errors
from tubelet.service.cli.help import Commands, examples
from tubelet.service.config.identities import check_name, parse_identities
from tubelet.service.config.problems import BadConfig

if TYPE_CHECKING:
    from tempfile import _TemporaryFileWrapper

token_app = Commands(help="Make tokens for clients of a server.")

_PREFIX = "tubelet_"  # so that programs that look for leaked secrets can find ours
_RANDOM_BYTES = 32

_errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


@token_app.callback()
def main() -> None:
    """Make tokens for clients of a server."""


@token_app.command(
    "new",
    epilog=examples(
        "tubelet token new alice", "tubelet token new alice --file identities.toml > alice.token"
    ),
)
def new_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who gets the token.")],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Add the identity to this file, server.access.identities of a server.",
        ),
    ] = None,
) -> None:
    """Make a token and print it, this once. Servers keep its hash, which stands in a file of identities."""
    try:
        check_name(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    token = f"{_PREFIX}{secrets.token_urlsafe(_RANDOM_BYTES)}"
    table = _table(name, token)
    with report_errors():
        if file is None:
            _errors.print(
                f"For the server's file of identities, with less than all if that is enough:\n\n{table}"
            )
            typer.echo(token)
        else:
            with _added(file, name, table):
                typer.echo(token)
            _errors.print(f"[{name}] may do all: see {file}. Its token is not shown again.")


def _table(name: str, token: str) -> str:
    """Return the TOML of an identity that may do all."""
    key = name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)
    hashed = sha256(token.encode()).hexdigest()
    return f'[{key}]\ntoken_sha256 = ["{hashed}"]\nmodels = "all"\nrpcs = "all"\nuris = "all"\n'


@contextmanager
def _added(file: Path, name: str, table: str) -> Iterator[None]:
    """Add the table of the identity to the file once the context ends without an error.

    The file is replaced at once, so that no server reads half of it, and keeps its mode, owner and group.

    Raises:
        BadConfig: the file is wrong, or has the identity already.
        OSError: it cannot be read or written.
    """
    target = file.resolve()
    try:
        old, state = target.read_bytes(), target.stat()
    except FileNotFoundError:
        old, state = b"", None
    if old.strip() and name in parse_identities(old, file).by_name:
        raise BadConfig(
            f"{file} has [{name}] already; to give it one more token, run this without --file, and put the "
            "hash into the list token_sha256"
        )
    content = old + (b"\n" if old else b"") + table.encode()
    parse_identities(content, file)
    with _file_beside(target) as new:
        try:
            new.write(content)
            new.flush()
            if state is not None:
                with suppress(PermissionError):  # not every user may give a file away
                    os.fchown(new.fileno(), state.st_uid, state.st_gid)
                os.fchmod(new.fileno(), stat.S_IMODE(state.st_mode))
            yield
            os.replace(new.name, target)
        except BaseException:
            os.unlink(new.name)
            raise


def _file_beside(target: Path) -> "_TemporaryFileWrapper[bytes]":
    """Make an empty file in the folder of ``target``.

    Raises:
        OSError: it cannot be made. The error names ``target``, which its reader knows.
    """
    try:
        return NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False)
    except OSError as error:
        raise OSError(f"cannot write {target}: {target.parent}: {error.strerror}") from error
