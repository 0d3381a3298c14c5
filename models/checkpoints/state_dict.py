"""Find the state dict in what a training script saved, and remove the prefixes that wrappers add to names."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

# Keys under which trainers save the weights beside the optimiser's state, the most specific first.
_STATE_DICT_KEYS = (
    *("model_state_dict", "state_dict", "model_state", "model", "net", "network", "module", "weights"),
    *("params", "model_ema", "state_dict_ema"),
)
WRAPPERS = ("_orig_mod.", "module.")
"""Prefixes of all names if the model was wrapped by torch.compile or DataParallel."""
ATTRIBUTES = (*WRAPPERS, "model.", "net.", "network.")
"""``WRAPPERS``, and prefixes of all names if the model was an attribute of the saved module."""
_MAX_LISTED = 8  # keys in an error message


class _Unread(list[Any]):
    """Stands for an object of a class other than tensors and plain values; no code of that class runs."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, _: object) -> None:
        """Drop the object's state."""


def load_pickled(file: Path) -> tuple[object, tuple[str, ...]]:
    """Load what torch.save wrote; returns it, and the names of the classes whose objects were not read.

    Trainers save their arguments and figures beside the weights, as objects of argparse or NumPy.

    Raises:
        pickle.UnpicklingError: the file would call functions on what was not read.
        Exception: the file is damaged.
    """
    try:
        unread = tuple(sorted(get_unsafe_globals_in_checkpoint(str(file))))
    except (ValueError, UnpicklingError):  # a file of before torch 1.6, or one of another kind
        unread = ()
    with safe_globals([(_Unread, name) for name in unread]):
        return torch.load(file, map_location="cpu", weights_only=True), unread


def find_state_dict(content: object) -> dict[str, Tensor]:
    """Return ``content`` if it is a state dict, else the only one inside it.

    Raises:
        ValueError: there is no state dict, or there are several; the message names the keys.
    """
    path: list[str] = []
    while not is_state_dict(content):
        where = f" under {'.'.join(path)}" if path else ""
        if not isinstance(content, dict):
            kind = "an object" if isinstance(content, _Unread) else type(content).__name__
            raise ValueError(f"holds no state dict{where}, but {kind}")
        inner = [str(key) for key, value in content.items() if is_state_dict(value)]
        known = [key for key in _STATE_DICT_KEYS if isinstance(content.get(key), dict)]
        if not known and len(inner) != 1:
            keys = ", ".join(map(str, list(content)[:_MAX_LISTED])) + (
                ", ..." if len(content) > _MAX_LISTED else ""
            )
            found = f"several state dicts ({', '.join(inner)})" if inner else "no state dict"
            raise ValueError(f"holds {found}{where}; its keys are {keys or 'none'}")
        path.append(known[0] if known else inner[0])
        content = content[path[-1]]
    return cast(dict[str, Tensor], content)


def is_state_dict(content: object) -> bool:
    """Return whether ``content`` is a dict of tensors by name that is not empty."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def without_prefixes(state: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    """Remove those of ``prefixes`` with which all names start, in any order."""
    # A counter of torch's averaged models (swa_utils), not a weight.
    state = {name: value for name, value in state.items() if name != "n_averaged"}
    while prefix := next((each for each in prefixes if _is_before_all(each, state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _is_before_all(prefix: str, state: Mapping[str, Any]) -> bool:
    """Return whether all names of ``state`` start with ``prefix``."""
    return bool(state) and all(name.startswith(prefix) for name in state)
