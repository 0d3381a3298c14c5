"""What an importer makes of somebody else's checkpoint, and how files are read without running any of it."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tubelet.models.checkpoints.state_dict import (
    WRAPPERS,
    find_state_dict,
    load_pickled,
    without_prefixes,
)
from tubelet.models.errors import MissingExtra
from tubelet.models.families.registry import Dims
from tubelet.models.runtime.host_memory import free_bytes
from tubelet.models.spec import Accuracy, OutputActivation, Preprocessing, Provenance, Sampling

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NAMED = 3  # classes in a message


class CannotImport(RuntimeError):
    """The checkpoint is not taken; the message says in one sentence what is wrong, and where."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A checkpoint under our names: all that a model's folder needs but its name and version.

    ``labels`` may be empty where the source has none, or none that can be used: ``label_problem`` then says
    why. ``num_classes`` counts the logits where our names of the parameters do not tell. ``untrained`` names
    the parts of the model that the source has nothing for, whose weights are random. ``warnings`` are
    sentences on what the import decided or changed.
    """

    dims: Dims
    preprocessing: Preprocessing
    sampling: Sampling
    labels: tuple[str, ...]
    state: Mapping[str, Tensor] = field(repr=False)
    description: str
    licence: str
    provenance: Provenance
    accuracy: tuple[Accuracy, ...] = ()
    activation: OutputActivation = "softmax"
    label_problem: str = ""
    num_classes: int | None = None
    untrained: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@contextmanager
def all_there(source: str) -> Iterator[None]:
    """What is read inside may lack something, or be of another kind: that stops the import and is named."""
    try:
        yield
    except (CannotImport, MissingExtra):
        raise
    except KeyError as error:
        raise CannotImport(f"{source} has no {error.args[0]}") from error
    # RuntimeErrors are torch's, of shapes that do not fit and of memory that does not suffice.
    except (
        ArithmeticError,
        AttributeError,
        IndexError,
        TypeError,
        ValueError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise CannotImport(f"{source} is not as such a checkpoint should be: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The beginning of an error's message, on one line; the name of its type if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CannotImport(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CannotImport(f"{file} holds no object, but {type(content).__name__}")
    return content


def check_memory(needed: int, what: str) -> None:
    """
    Raises:
        CannotImport: not so many bytes are free.
    """
    free = free_bytes()
    if needed > free:
        raise CannotImport(
            f"{what} needs about {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free"
        )


def read_tensors(file: Path, prefixes: tuple[str, ...] = WRAPPERS) -> dict[str, Tensor]:
    """The state dict of a .safetensors file, or of a .pth, .pt or .bin file, of which no code is run.

    ``prefixes`` are taken off where they are before each name. What else is pickled beside it is not read.

    Raises:
        CannotImport: it is unreadable, cut off, larger than the memory that is free, as it is or as what it
            says it holds, or pickles more than tensors, which could run code.
    """
    try:
        check_memory(_content_bytes(file), str(file))
        if file.suffix == ".safetensors":
            return without_prefixes(load_file(file), prefixes)
        content, unread = load_pickled(file)
    except CannotImport:
        raise
    except UnpicklingError as error:  # torch's own words advise to run what it holds
        raise CannotImport(
            f"{file} holds no tensors that can be read safely: it is cut off, or pickles more than tensors; "
            "save a model's state_dict(), not the model"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its operations meet
        reason = " ".join(str(error).split())[:200]
        raise CannotImport(f"{file} holds no tensors that can be read safely: {reason}") from error
    try:
        content = without_prefixes(find_state_dict(content), prefixes)
    except ValueError as error:
        raise CannotImport(f"{file} {error}{_not_read(unread)}") from error
    # A few numbers that are kept once may stand for tensors of any size.
    check_memory(sum(value.numel() * value.element_size() for value in content.values()), str(file))
    return content


def _not_read(classes: tuple[str, ...]) -> str:
    if not classes:
        return ""
    named = ", ".join(classes[:_NAMED]) + (", ..." if len(classes) > _NAMED else "")
    return f"; objects of {named} are not read: save a model's state_dict(), not the model"


def read_folder_tensors(folder: Path) -> dict[str, Tensor]:
    """The state dict of a folder as ``save_pretrained`` writes it: one file, or shards and their index."""
    for suffix, stem in ((".safetensors", "model"), (".bin", "pytorch_model")):
        index = folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            shards = sorted({_shard(name, suffix, index) for name in read_json(index)["weight_map"].values()})
            return {name: value for shard in shards for name, value in read_tensors(folder / shard).items()}
        if (folder / f"{stem}{suffix}").is_file():
            return read_tensors(folder / f"{stem}{suffix}")
    raise CannotImport(f"{folder} has neither model.safetensors nor pytorch_model.bin")


def _content_bytes(file: Path) -> int:
    """A file's size once it is unpacked: torch's are zip archives, which may be compressed."""
    size = file.stat().st_size
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            size = max(size, sum(part.file_size for part in archive.infolist()))
    return size


def _shard(name: object, suffix: str, index: Path) -> str:
    if not isinstance(name, str) or not name.endswith(suffix) or "/" in name:
        raise CannotImport(f"{index} names the shard {name!r}, which is no {suffix} file beside it")
    return name
