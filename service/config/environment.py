"""Environment variables that set keys of the configuration, and the sentence for one that is wrong."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, get_origin

from pydantic import BaseModel

from tubelet.service.config.problems import BadConfig, closest
from tubelet.service.config.renamed import RENAMED_KEYS

PREFIX = "TUBELET_"


def variables(root: type[BaseModel]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield each variable that sets keys of ``root``: its name, the path of the key or table, and the value.

    A variable that beats another comes after it. All are well formed: see ``check_variables``.
    """
    for name in sorted(os.environ, key=lambda name: name.count("__")):
        path = tuple(name[len(PREFIX) :].lower().split("__"))
        if name.upper().startswith(PREFIX) and path[0] in root.model_fields:
            value = os.environ[name]
            yield name, path, json.loads(value) if _is_table(root, path) else value


def variables_in_force(
    root: type[BaseModel], flags: Mapping[str, Mapping[str, object]]
) -> dict[tuple[str, ...], str]:
    """Map the path of each key that a variable sets, and no flag does, to the name of the variable."""
    found: dict[tuple[str, ...], str] = {}
    for name, path, content in variables(root):
        # Beside the keys of a table that a variable holds, the file may have some of its own.
        paths = [(*path, key) for key in content] if isinstance(content, dict) else [path]
        found |= dict.fromkeys(paths, name)
    by_flag = {(table, key) for table, keys in flags.items() for key in keys}
    return {path: name for path, name in found.items() if path not in by_flag}


def check_variables(root: type[BaseModel]) -> None:
    """Check the names of our variables and the JSON in them; pydantic's errors do not name variables.

    Raises:
        BadConfig: a variable names no table, or a key by its old name, or holds a list or table that is not
            JSON.
    """
    for name, value in os.environ.items():
        if name.upper().startswith(PREFIX):
            _check_variable(root, name, value)


def _check_variable(root: type[BaseModel], name: str, value: str) -> None:
    """Check the name and the value of one variable; raises as ``check_variables`` does."""
    table, *key = name[len(PREFIX) :].lower().split("__")
    if table not in root.model_fields:
        # What has no __ is none of ours: Kubernetes tells of a service by TUBELET_SERVICE_HOST and the like.
        if key:
            near = closest([table], root.model_fields)
            raise BadConfig(f"{name} in the environment: no key begins with {table}{near}")
        return
    if new := RENAMED_KEYS.get(".".join([table, *key])):
        raise BadConfig(f"{name} in the environment: renamed to {PREFIX}{new.replace('.', '__').upper()}")
    if _is_table(root, (table, *key)):
        wanted = "a table is written as JSON"
    elif _kind(root, (table, *key)) is tuple:
        wanted = f'a list is written as JSON, such as ["a", "b"]; found {value!r}'
    else:
        return
    try:
        json.loads(value)
    except ValueError:
        raise BadConfig(f"{name} in the environment: {wanted}") from None


def _is_table(root: type[BaseModel], path: tuple[str, ...]) -> bool:
    """Tell whether the key at ``path`` is a table, which a variable holds as JSON."""
    return _kind(root, path) is dict


def _kind(root: type[BaseModel], path: tuple[str, ...]) -> Any:
    """Return ``tuple`` or ``dict`` where the key at ``path`` holds a list or a table, None for other keys."""
    kind: Any = root
    for part in path:
        if not _has_keys(kind) or part not in kind.model_fields:
            return None
        kind = kind.model_fields[part].annotation
    return dict if _has_keys(kind) else get_origin(kind)


def _has_keys(kind: Any) -> bool:
    """Tell whether ``kind`` is the class of a table."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)
