"""Errors of a configuration, as sentences for the person who wrote it."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tubelet.service.config.renamed import REMOVED_KEYS, RENAMED_KEYS

_IN_TOML = {"model_type": "a table", "dict_type": "a table", "tuple_type": "a list", "path_type": "a path"}


class BadConfig(ValueError):
    """The configuration is wrong; ``problems`` has a sentence for each error in it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def problems(
    error: ValidationError, root: type[BaseModel], variables: Mapping[tuple[str, ...], str]
) -> tuple[str, ...]:
    """Describe each error of values for ``root``, with keys as the TOML file has them.

    ``variables`` has the names of environment variables, by the paths of the keys that they set.
    """
    return tuple(_sentence(each, root, variables) for each in error.errors())


def _sentence(error: ErrorDetails, root: type[BaseModel], variables: Mapping[tuple[str, ...], str]) -> str:
    """Describe one error: the key, what is wrong, the value found, and the variable that set it."""
    # Pydantic names the validators that it went through, too.
    key = [str(part) for part in error["loc"] if "[" not in str(part)]
    name, found = ".".join(key), f"; found {error['input']!r:.200}"
    if key[:1] == ["client"] or isinstance(error["input"], dict):  # perhaps a token; all keys of a table
        found = ""
    if name in RENAMED_KEYS:
        what = f"renamed to {RENAMED_KEYS[name]}"
    elif name in REMOVED_KEYS:
        what = f"removed: {REMOVED_KEYS[name]}"
    elif error["type"] == "extra_forbidden":
        what = f"no such key{closest(key, fields(root, key[:-1]))}"
    elif error["type"] in _IN_TOML:
        wanted = _IN_TOML[error["type"]]
        # A value in the place of a table may be a password: it is not repeated.
        what = f"Input should be {wanted}{'' if wanted == 'a table' else found}"
    else:
        what = error["msg"].removeprefix("Value error, ") + found
    beginnings = (tuple(key[:length]) for length in range(len(key), 0, -1))
    variable = next((variables[path] for path in beginnings if path in variables), "")
    return f"{name}: {what}{variable and f' ({variable} in the environment)'}"


def closest(key: list[str], known: Iterable[str]) -> str:
    """Return a hint in brackets at the known key that the last part may be misspelt for, or nothing."""
    near = get_close_matches(key[-1], known, n=1)
    return f" (closest: {'.'.join([*key[:-1], *near])})" if near else ""


def fields(root: type[BaseModel], path: Iterable[str] = ()) -> dict[str, FieldInfo]:
    """Return the keys of the table at ``path`` within ``root``; each part of the path must be a table."""
    table = root
    for part in path:
        table = cast(type[BaseModel], table.model_fields[part].annotation)
    return table.model_fields
