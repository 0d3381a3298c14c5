"""Convert tables of a TOML file, which may hold anything, to dataclasses, checking keys and types."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_T = TypeVar("_T")


def parse_table(kind: type[_T], table: object, name: str) -> _T:
    """Convert ``table`` to the dataclass ``kind``, arrays to tuples; ``name`` is its key, for messages.

    A field whose type is a dataclass, or a dataclass or None, is a table inside ``table``.

    Raises:
        ValueError: ``table`` is not a table, a key is missing or unknown, a value has another type than its
            field (these messages name the key), or the dataclass itself refuses the values.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{name}: Input should be a table; found {table!r:.200}")
    hints = get_type_hints(kind)
    wanted = {field.name: hints[field.name] for field in fields(cast(Any, kind))}
    for key in table:
        if key not in wanted:
            raise ValueError(f"{name}.{key}: no such key; there are {', '.join(wanted)}")
    for field in fields(cast(Any, kind)):
        if field.name not in table and field.default is MISSING:
            raise ValueError(f"{name}.{field.name}: missing")
    return kind(**{key: _parse_field(wanted[key], value, f"{name}.{key}") for key, value in table.items()})


def _parse_field(kind: Any, value: object, name: str) -> Any:
    """Convert the ``value`` of a field of type ``kind``; see ``parse_table`` and ``parse_value``."""
    nested = next((each for each in (kind, *get_args(kind)) if is_dataclass(each)), None)
    return parse_value(kind, value, name) if nested is None else parse_table(cast(Any, nested), value, name)


def value_at(table: object, *keys: str) -> object:
    """Return the value at ``keys``, each inside the table of the one before.

    Raises:
        ValueError: a key is missing; the message names it.
    """
    for number, key in enumerate(keys, 1):
        if not isinstance(table, Mapping):
            raise ValueError(f"{'.'.join(keys[: number - 1])}: Input should be a table; found {table!r:.200}")
        if key not in table:
            raise ValueError(f"{'.'.join(keys[:number])}: missing")
        table = table[key]
    return table


def parse_value(kind: Any, value: object, name: str) -> Any:
    """Check that ``value`` has the type ``kind``, and return it, arrays as tuples. Numbers must be finite.

    Raises:
        ValueError: the type is another; the message has the key ``name``, the expected type and the value.
    """
    try:
        return _adapter(kind).validate_python(tuple(value) if isinstance(value, list) else value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join((name, *map(str, first["loc"])))
        raise ValueError(f"{key}: {first['msg']}; found {first['input']!r:.200}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return the validator of a type, which is expensive to build."""
    return TypeAdapter(kind, config=_STRICT)
