"""Where a video is: URIs, and prefixes of those that may be fetched. Pure text, nothing is looked up.

Only one way to read a URI is let through (RFC 3986): what two programs may take for different places, such as
a user name before the host or a path with dots in it, encoded or not, is refused.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import quote, unquote

Scheme = Literal["file", "http", "https", "s3", "gs"]
SCHEMES: tuple[Scheme, ...] = ("file", "http", "https", "s3", "gs")
_PORTS = {"http": 80, "https": 443}

_MAX_CHARACTERS = 8192  # signed URLs have some two thousand
_SHAPE = re.compile(r"([^:/?#]+)://([^/?#]*)([^?#]*)(?:\?([^#]*))?", re.DOTALL)
_BEGINNING = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]|%(?![0-9A-Fa-f]{2})")
_IN_PATH = "/%:@!$&'()*+,;=-._~"
_IN_QUERY = _IN_PATH + "?"


def is_uri(video: str) -> bool:
    """Is it meant as a URI, be it of a scheme that is not taken, and not as the path of a local file?"""
    return _BEGINNING.match(video) is not None


@dataclass(frozen=True, slots=True)
class Uri:
    """``path`` and ``query`` are percent-encoded; ``host`` is the bucket of an object store."""

    scheme: Scheme
    host: str
    port: int | None
    path: str
    query: str = ""

    def __str__(self) -> str:
        """For logs: without the query, which may be a signature."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        is_usual = self.port is None or self.port == _PORTS.get(self.scheme)
        return self.host if is_usual else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """All of it."""
        return f"{self}?{self.query}" if self.query else str(self)

    @property
    def key(self) -> str:
        """The path in plain text."""
        return unquote(self.path)


def parse_uri(text: str) -> Uri:
    """
    Raises:
        ValueError: a sentence that says what is wrong with it.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"a URI of {len(text)} characters is longer than {_MAX_CHARACTERS}")
    found = _SHAPE.fullmatch(text)
    if found is None or found[1].lower() not in SCHEMES:
        raise ValueError(f"a URI begins with one of {', '.join(f'{each}://' for each in SCHEMES)}, has no #")
    scheme = cast(Scheme, found[1].lower())
    host, port = _authority(scheme, found[2])
    if scheme == "file" and not found[3]:
        raise ValueError("a URI of file:// needs a path")
    path, query = found[3] or "/", found[4] or ""
    if _FORBIDDEN.search(path + query):
        raise ValueError("a URI has no control characters, no backslash and no % but before two hex digits")
    if _climbs(path):
        raise ValueError("the path of a URI has no ., no .. and no zero byte in it, encoded or not")
    if query and scheme not in _PORTS:
        raise ValueError(f"a URI of {scheme}:// has no query; a ? in a name is written %3F")
    return Uri(scheme, host, port, quote(path, safe=_IN_PATH), quote(query, safe=_IN_QUERY))


@dataclass(frozen=True, slots=True)
class Prefix:
    """Of URIs, up to the end of a path's segment; without a host, of those on any host's usual port."""

    uri: Uri

    def covers(self, uri: Uri) -> bool:
        prefix = self.uri
        if (uri.scheme, uri.port) != (prefix.scheme, prefix.port) or prefix.host not in ("", uri.host):
            return False
        folder = prefix.path.rstrip("/")
        return uri.path == folder or uri.path.startswith(f"{folder}/")


def parse_prefix(text: str) -> Prefix:
    """
    Raises:
        ValueError: it is no URI, or has a query.
    """
    scheme, separator, rest = text.partition("://")
    is_any_host = rest.strip("/") == "" and scheme.lower() != "file"
    uri = parse_uri(f"{scheme}{separator}any" if is_any_host else text)
    if uri.query:
        raise ValueError("a prefix has no query")
    return Prefix(Uri(uri.scheme, "", uri.port, "/") if is_any_host else uri)


def is_covered(uri: Uri, prefixes: Iterable[Prefix]) -> bool:
    return any(prefix.covers(uri) for prefix in prefixes)


def _authority(scheme: Scheme, text: str) -> tuple[str, int | None]:
    """The host, in lower case where that makes no difference, and the port."""
    if scheme == "file":
        if text.lower() not in ("", "localhost"):
            raise ValueError("a URI of file:// names no other machine: file:///PATH")
        return "", None
    if "@" in text:
        raise ValueError("a URI must not carry a user name or password")
    host, _, number = text.partition(":") if not text.startswith("[") else _after_bracket(text)
    host = host.removesuffix(".")
    if not _HOST.fullmatch(host):
        raise ValueError(f"a URI of {scheme}:// needs a host of letters, digits, dots and dashes")
    if scheme not in _PORTS:
        if number:
            raise ValueError(f"a URI of {scheme}:// has no port")
        return host, None
    if number and not (number.isascii() and number.isdigit() and 0 < int(number) < 1 << 16):
        raise ValueError("the port of a URI is a number from 1 to 65535")
    return host.lower(), int(number) if number else _PORTS[scheme]


def _after_bracket(text: str) -> tuple[str, str, str]:
    address, _, rest = text.partition("]")
    if rest and not rest.startswith(":"):
        raise ValueError("a URI needs a colon between the address in brackets and the port")
    return f"{address}]", ":", rest[1:]


def _climbs(path: str) -> bool:
    """Would some program take a segment for . or .., or stop at a zero byte?

    Some decode twice, or leave out what is after a ;.
    """
    while True:
        if any(segment.partition(";")[0] in (".", "..") for segment in re.split(r"[/\\]", path)):
            return True
        if "\0" in path:
            return True
        if (plain := unquote(path)) == path:
            return False
        path = plain
