"""The token of a client: given as text, or as a file, by its caller or in the environment."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from tubelet.service.types.target import is_local

_TEXT, _FILE, _PLAIN = (f"TUBELET_CLIENT__{key}" for key in ("TOKEN", "TOKEN_FILE", "PLAIN_TOKEN"))
_ON = ("1", "true", "t", "yes", "y", "on")


class BadToken(ValueError):
    """The token of a client cannot be read, is none, or must not be sent; the message does not repeat it."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, which says to a server who calls: its text, or the file that has it.

    The file is read for each call, since it may be replaced. ``is_plain`` lets the token be sent to other
    machines without TLS, for networks in which a mesh encrypts.
    """

    text: str = field(default="", repr=False)
    file: str | os.PathLike[str] | None = None
    is_plain: bool = False

    def __post_init__(self) -> None:
        if bool(self.text) == (self.file is not None):
            raise BadToken("a token is given by its text or by a file: one of both, and not both")

    def read(self) -> str:
        """Return the text.

        Raises:
            BadToken: the file cannot be read.
        """
        if self.file is None:
            return self.text
        try:
            return Path(self.file).read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise BadToken(f"cannot read the token in {os.fspath(self.file)}: {error.strerror}") from error

    def check_target(self, target: str) -> None:
        """Check that the token may be sent to ``target`` without TLS.

        Raises:
            BadToken: others on the network could read it.
        """
        if not self.is_plain and not is_local(target):
            raise BadToken(
                f"without TLS, others on the network to {target} could read the token; use TLS, or set "
                f"{_PLAIN}=1 where a mesh encrypts"
            )


def token_from_environment() -> Token | None:
    """Return the token that ``TUBELET_CLIENT__TOKEN`` or ``TUBELET_CLIENT__TOKEN_FILE`` gives, if one does.

    Raises:
        BadToken: both do.
    """
    text, file = os.environ.get(_TEXT, ""), os.environ.get(_FILE) or None
    is_plain = os.environ.get(_PLAIN, "").lower() in _ON
    return Token(text, file, is_plain) if text or file else None
