"""Texts of clients and lists of names, as parts of messages."""

from collections.abc import Sequence

_MAX_QUOTED = 100  # characters of a client's text in a message
_MAX_LISTED = 20  # names in a message


def quoted(text: str) -> str:
    """Quote ``text`` for a message; a long one is cut."""
    return repr(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…")


def listed(names: Sequence[str]) -> str:
    """Join ``names`` for a message; of many, only the first ones, and how many more there are."""
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
