"""Times, names and counts as text for people, in a terminal and on a page."""

import os

from tubelet.service.types.video import NS_PER_S


def decodable(text: str) -> str:
    r"""Return ``text`` as valid UTF-8: ``\xE9`` stands for each byte of a file name that is not UTF-8."""
    return os.fsencode(text).decode(errors="backslashreplace")


def printable(text: str) -> str:
    r"""Return ``text`` in one line, safe for a terminal: control characters are escaped, as in ``\x1b``."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in decodable(text)
    )


def clock(time_ns: int) -> str:
    """Format a time as h:mm:ss.t, such as 0:29:59.5."""
    tenths = round(time_ns * 10 / NS_PER_S)
    minutes, tenths = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02}:{tenths // 10:02}.{tenths % 10}"


def span_text(start_ns: int, end_ns: int) -> str:
    """Format a time range."""
    return f"{clock(start_ns)} - {clock(end_ns)}"


def counted(number: float, noun: str) -> str:
    """Return a number with its noun, such as 1 epoch or 2.5 minutes."""
    text = str(number) if isinstance(number, int) else f"{number:g}"
    return f"{text} {noun}" if number == 1 else f"{text} {noun}s"
