"""URIs of videos, and prefixes of URIs that may be fetched (RFC 3986). No name is resolved.

A URI that two programs may read differently is refused, such as one with a user name before the host, or with
``.`` or ``..`` in its path, encoded or not.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import quote, unquote, unquote_to_bytes

Scheme = Literal["file", "http", "https", "s3", "gs"]
SCHEMES: tuple[Scheme, ...] = ("file", "http", "https", "s3", "gs")
_STARTS = ", ".join(f"{scheme}://" for scheme in SCHEMES)
_PORTS = {"http": 80, "https": 443}

_MAX_CHARACTERS = 8192  # signed URLs have about 2,000
_SHAPE = re.compile(r"([^:/?#]+)://([^/?#]*)([^?#]*)(?:\?([^#]*))?", re.DOTALL)
_BEGINNING = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]|%(?![0-9A-Fa-f]{2})")
_IN_PATH = "/%:@!$&'()*+,;=-._~"
_IN_QUERY = _IN_PATH + "?"


def is_uri(video: str) -> bool:
    """Whether ``video`` is a URI, of whatever scheme, rather than the path of a local file."""
    return _BEGINNING.match(video) is not None


@dataclass(frozen=True, slots=True)
class Uri:
    """The parts of a URI: ``path`` and ``query`` are percent-encoded; ``host`` may be a bucket's name."""

    scheme: Scheme
    host: str
    port: int | None
    path: str
    query: str = ""

    def __str__(self) -> str:
        """Return the URI without its query, for logs: the query may hold a signature."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """The host, and the port unless it is the scheme's own."""
        is_usual = self.port is None or self.port == _PORTS.get(self.scheme)
        return self.host if is_usual else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The complete URI, with its query."""
        return f"{self}?{self.query}" if self.query else str(self)

    @property
    def key(self) -> str:
        """The path, with percent-encoding decoded."""
        return unquote(self.path)

    @property
    def local_path(self) -> str:
        """The path of the file that a file:// URI names; as in ``os.fsdecode``, it may be no UTF-8."""
        return os.fsdecode(unquote_to_bytes(self.path))


def parse_uri(text: str) -> Uri:
    """Parse ``text`` into a URI whose parts are written in one way only.

    Raises:
        ValueError: ``text`` is not a URI that is supported; the message says why.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"the URI has {len(text)} characters; the limit is {_MAX_CHARACTERS}")
    found = _SHAPE.fullmatch(text)
    if found is None or found[1].lower() not in SCHEMES:
        raise ValueError(f"unsupported URI: it must start with one of {_STARTS} and contain no #")
    scheme = cast(Scheme, found[1].lower())
    host, port = _authority(scheme, found[2])
    if scheme == "file" and not found[3]:
        raise ValueError("a file:// URI needs a path: file:///PATH")
    path, query = found[3] or "/", found[4] or ""
    if _FORBIDDEN.search(path + query):
        raise ValueError("the URI contains a control character, a backslash or a % without two hex digits")
    if _climbs(path):
        raise ValueError("the path of the URI contains ., .. or a zero byte, perhaps encoded")
    if query and scheme not in _PORTS:
        raise ValueError(f"a {scheme}:// URI must not have a query; write a ? in a name as %3F")
    return Uri(scheme, host, port, quote(path, safe=_IN_PATH), quote(query, safe=_IN_QUERY))


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix of URIs, whole path segments only; without a host, it covers all hosts on the usual port."""

    uri: Uri

    def covers(self, uri: Uri) -> bool:
        """Whether ``uri`` starts with this prefix."""
        prefix = self.uri
        if (uri.scheme, uri.port) != (prefix.scheme, prefix.port) or prefix.host not in ("", uri.host):
            return False
        folder = prefix.path.rstrip("/")
        return uri.path == folder or uri.path.startswith(f"{folder}/")


def parse_prefix(text: str) -> Prefix:
    """Parse ``text`` into a prefix; ``https://`` alone covers all hosts.

    Raises:
        ValueError: ``text`` is not a URI that is supported, or has a query.
    """
    scheme, separator, rest = text.partition("://")
    is_any_host = rest.strip("/") == "" and scheme.lower() != "file"
    uri = parse_uri(f"{scheme}{separator}any" if is_any_host else text)
    if uri.query:
        raise ValueError("a prefix must not have a query")
    return Prefix(Uri(uri.scheme, "", uri.port, "/") if is_any_host else uri)


def is_covered(uri: Uri, prefixes: Iterable[Prefix]) -> bool:
    """Whether any of ``prefixes`` covers ``uri``."""
    return any(prefix.covers(uri) for prefix in prefixes)


def _authority(scheme: Scheme, text: str) -> tuple[str, int | None]:
    """Parse a URI's authority into host and port; the host is in lower case where case does not matter."""
    if scheme == "file":
        if text.lower() not in ("", "localhost"):
            raise ValueError("a file:// URI must not name a host: file:///PATH")
        return "", None
    if "@" in text:
        raise ValueError("the URI must not contain a user name or password")
    host, _, number = text.partition(":") if not text.startswith("[") else _after_bracket(text)
    host = host.removesuffix(".")
    if not _HOST.fullmatch(host):
        raise ValueError(f"a {scheme}:// URI needs a host of letters, digits, dots and dashes")
    if scheme not in _PORTS:
        if number:
            raise ValueError(f"a {scheme}:// URI must not have a port")
        return host, None
    if number and not (number.isascii() and number.isdigit() and 0 < int(number) < 1 << 16):
        raise ValueError("the port of the URI must be a number from 1 to 65535")
    return host.lower(), int(number) if number else _PORTS[scheme]


def _after_bracket(text: str) -> tuple[str, str, str]:
    """Split an authority that begins with an IPv6 address in brackets: address, colon, port."""
    address, _, rest = text.partition("]")
    if rest and not rest.startswith(":"):
        raise ValueError("the URI needs a colon between the address in brackets and the port")
    return f"{address}]", ":", rest[1:]


def _climbs(path: str) -> bool:
    """Whether some program may read a segment of ``path`` as ``.`` or ``..``, or stop at a zero byte.

    Some programs decode a path twice, or drop what follows a semicolon.
    """
    while True:
        if any(segment.partition(";")[0] in (".", "..") for segment in re.split(r"[/\\]", path)):
            return True
        if "\0" in path:
            return True
        if (plain := unquote(path)) == path:
            return False
        path = plain
