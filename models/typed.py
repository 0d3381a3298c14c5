"""Tables of a file as the fields of a dataclass want them: somebody else wrote the file."""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def typed_fields(kind: type, table: object, name: str = "") -> dict[str, Any]:
    """The table's values, arrays as tuples. Keys that are missing or too many are the dataclass's to refuse.

    Raises:
        ValueError: it is no table, or a value is not of its field's type; the message names the key, what is
            wanted and what was found.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{name}: Input should be a table; found {table!r:.200}")
    wanted = get_type_hints(kind)
    return {
        key: typed(wanted[key], value, f"{name}.{key}" if name else key) if key in wanted else value
        for key, value in table.items()
    }


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
