"""What is wrong with a configuration, in sentences for whoever wrote it."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_IN_TOML = {"model_type": "a table", "dict_type": "a table", "tuple_type": "a list", "path_type": "a path"}


class BadConfig(ValueError):
    """``problems`` has a sentence for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def problems(
    error: ValidationError, root: type[BaseModel], variables: Mapping[tuple[str, ...], str]
) -> tuple[str, ...]:
    """Of values for ``root``, with keys as the TOML file has them.

    ``variables`` are the names of those of the environment, by the keys that they set.
    """
    said = []
    for each in error.errors():
        # Pydantic names the validators that it went through, too.
        key = [str(part) for part in each["loc"] if "[" not in str(part)]
        found = f"; found {each['input']!r:.200}"
        if each["type"] == "extra_forbidden":
            what = f"no such key{closest(key, fields(root, key[:-1]))}"
        elif each["type"] in _IN_TOML:
            wanted = _IN_TOML[each["type"]]
            # What was meant for a table may hold a password.
            what = f"Input should be {wanted}{'' if wanted == 'a table' else found}"
        else:
            what = each["msg"].removeprefix("Value error, ") + found
        beginnings = (tuple(key[:length]) for length in range(len(key), 0, -1))
        variable = next((variables[keys] for keys in beginnings if keys in variables), "")
        said.append(f"{'.'.join(key)}: {what}{variable and f' ({variable} in the environment)'}")
    return tuple(said)


def closest(key: list[str], known: Iterable[str]) -> str:
    """In brackets, the known key that the last part may be misspelt for; nothing if there is none."""
    near = get_close_matches(key[-1], known, n=1)
    return f" (closest: {'.'.join([*key[:-1], *near])})" if near else ""


def fields(root: type[BaseModel], path: Iterable[str] = ()) -> dict[str, FieldInfo]:
    """The keys of a table within ``root``, all of which are models of pydantic's."""
    table = root
    for part in path:
        table = cast(type[BaseModel], table.model_fields[part].annotation)
    return table.model_fields
