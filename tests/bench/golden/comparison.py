"""Where two outcomes differ."""

from typing import Any

TOLERANCE = 1e-5  # of scores: a batch's sums depend on its size


def compare(name: str, old: Any, new: Any, *, messages: bool) -> list[str]:
    """Return a line for each place where two outcomes differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if messages or key not in ("message", "warnings")]
        return [
            line
            for key in keys
            for line in compare(f"{name}.{key}", old.get(key), new.get(key), messages=messages)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for number, pair in enumerate(zip(old, new, strict=True))
            for line in compare(f"{name}[{number}]", *pair, messages=messages)
        ]
    if isinstance(old, float) and isinstance(new, float) and abs(old - new) <= TOLERANCE:
        return []
    return [] if old == new else [f"{name}: {old!r} before, {new!r} now"]
