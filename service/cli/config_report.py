"""``tubelet config``: every key of the configuration, its value, and the origin of the value."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from tubelet.service.config.config import Config, load_config
from tubelet.service.config.environment import variables

Flags = Mapping[str, Mapping[str, Any]]
_Path = tuple[str, ...]

_MASK = "***"
# Keys of fetch.options without secrets. Libraries have many names for secrets, so all others are masked.
_SHOWN_OPTIONS = ("endpoint_url", "project", "region_name")
# What a person who reads the values of a table must know.
_NOTES = {"server.access.quotas": "of each identity; each replica counts for itself"}
_MAX_ALIGNED_LENGTH = 60  # characters of an assignment; a longer one has its comment right after it

_out = Console(highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the configuration with its value; ``source`` names the file, variable or flag that set it."""

    key: str
    value: Any
    default: Any
    origin: Literal["default", "file", "environment", "flag"]
    source: str = ""


def print_config(path: Path | None, flags: Flags, *, as_json: bool) -> None:
    """Print the configuration of a server that is started with this file and these flags.

    Raises:
        tubelet.service.config.problems.BadConfig: no server would start with it.
    """
    found = settings(path, flags)
    if as_json:
        for setting in found:
            print(json.dumps(asdict(setting)))
        return
    for number, (table, rows) in enumerate(groupby(found, lambda setting: setting.key.rpartition(".")[0])):
        note = f"  # {_NOTES[table]}" if table in _NOTES else ""
        _out.print(("\n" if number else "") + f"[{table}]", style="bold", end="")
        _out.print(note, style="dim")
        _print_table(list(rows))


def settings(path: Path | None, flags: Flags) -> list[Setting]:
    """Return all keys, table by table; values of ``fetch.options`` that may be secret are masked.

    Raises:
        tubelet.service.config.problems.BadConfig: an unknown key, a wrong value, or no such file.
    """
    config = load_config(path, **flags)
    origins = _origins(path, flags)
    default = {table: type(stage)().model_dump(mode="json") for table, stage in config}
    unset = ("default", "")  # also the origin of a token in the file that a token of the environment beats
    return [
        Setting(
            ".".join(key),
            _masked(key, value),
            _value_at(default, key),
            *(unset if value is None else origins.get(key, unset)),
        )
        for key, value in _leaves(config.model_dump(mode="json"))
    ]


def _origins(path: Path | None, flags: Flags) -> dict[_Path, tuple[Any, str]]:
    """Return the origin and source of each key that is set: flags beat the environment, that the file."""
    content = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
    return {
        **{key: ("file", str(path)) for key, _ in _leaves(content)},
        **{
            key: ("environment", name)
            for name, at, value in variables(Config)
            for key, _ in _leaves(value, at)
        },
        **{key: ("flag", f"--{key[-1].replace('_', '-')}") for key, _ in _leaves(flags)},
    }


def _leaves(value: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Yield the values of nested tables with their paths; an empty table counts as a value."""
    if isinstance(value, Mapping) and (value or not path):
        for key, each in value.items():
            yield from _leaves(each, (*path, key))
    else:
        yield path, value


def _value_at(tables: Any, path: _Path) -> Any:
    """Return the value at ``path`` in nested tables; None if there is none."""
    for key in path:
        tables = tables.get(key) if isinstance(tables, Mapping) else None
    return tables


def _masked(path: _Path, value: Any) -> Any:
    """Return the value, or ``***`` if it may be a secret."""
    if path[:2] != ("fetch", "options") or isinstance(value, bool | Mapping):
        return value
    # A URL may hold a password, or a signature in its query.
    is_plain = path[-1] in _SHOWN_OPTIONS and not {"@", "?"} & set(str(value))
    return value if is_plain else _MASK


def _print_table(rows: list[Setting]) -> None:
    """Print the settings of a table as lines of TOML, with their origins as aligned comments."""
    lines = [_assignment(row) for row in rows]
    width = max((len(line) for line in lines if len(line) <= _MAX_ALIGNED_LENGTH), default=0)
    for row, line in zip(rows, lines, strict=True):
        is_default = row.origin == "default"
        comment = f"# {' '.join(filter(None, (row.origin, row.source)))}"
        if row.value != row.default and not is_default:
            comment += f"; default: {_toml(row.default)}"
        _out.print(Text(f"{line:<{width}}  ", "" if is_default else "bold").append(comment, "dim"))


def _assignment(row: Setting) -> str:
    """Format a setting as a line of TOML; TOML cannot express an unset value, so that is a comment."""
    name = row.key.rpartition(".")[2]
    return f"# {name} is not set" if row.value is None else f"{name} = {_toml(row.value)}"


def _toml(value: Any) -> str:
    """Format a value as in TOML."""
    # Strings, numbers, booleans, arrays of these and an empty table are written alike in JSON and TOML.
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
