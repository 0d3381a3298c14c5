"""Tables of a file as the fields of a dataclass want them: somebody else wrote the file."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_T = TypeVar("_T")


def typed_table(kind: type[_T], table: object, name: str) -> _T:
    """The table as that dataclass, arrays as tuples.

    Raises:
        ValueError: it is no table, a key is missing or none of the dataclass's, a value is not of its field's
            type, or the dataclass refuses them; but for that, the message names the key.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{name}: Input should be a table; found {table!r:.200}")
    wanted = get_type_hints(kind)
    for key in table:
        if key not in wanted:
            raise ValueError(f"{name}.{key}: no such key; there are {', '.join(wanted)}")
    for field in fields(cast(Any, kind)):
        if field.name not in table and field.default is MISSING:
            raise ValueError(f"{name}.{field.name}: missing")
    return kind(**{key: typed(wanted[key], value, f"{name}.{key}") for key, value in table.items()})


def value_at(table: object, *keys: str) -> object:
    """The value under these keys, one within the other.

    Raises:
        ValueError: there is none; the message names the key.
    """
    for number, key in enumerate(keys, 1):
        if not isinstance(table, Mapping):
            raise ValueError(f"{'.'.join(keys[: number - 1])}: Input should be a table; found {table!r:.200}")
        if key not in table:
            raise ValueError(f"{'.'.join(keys[:number])}: missing")
        table = table[key]
    return table


def typed(kind: Any, value: object, name: str) -> Any:
    """The value, an array as a tuple; numbers are finite.

    Raises:
        ValueError: it is of another type; the message names it, what is wanted and what was found.
    """
    try:
        return _adapter(kind).validate_python(tuple(value) if isinstance(value, list) else value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join((name, *map(str, first["loc"])))
        raise ValueError(f"{key}: {first['msg']}; found {first['input']!r:.200}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=_STRICT)
