"""A checkpoint of another project in tubelet's terms, and how to read files without running code."""

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
from tubelet.models.errors import CannotImport, MissingExtra
from tubelet.models.families.registry import Dims
from tubelet.models.runtime.host_memory import free_bytes
from tubelet.models.spec import Accuracy, OutputActivation, Preprocessing, Provenance, Sampling

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MAX_LISTED = 3  # classes in a message


@dataclass(frozen=True, slots=True)
class ForeignCheckpoint:
    """A checkpoint whose parameters have tubelet's names, with all that a model's folder needs but a name.

    ``labels`` is empty if the source has none that can be used; ``label_problem`` then says why.
    ``num_classes`` is the number of logits, where the parameters do not show it. ``untrained`` names the
    parts of the model that the source has no weights for, which are random. ``warnings`` are sentences on
    what the import decided or changed.
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
def explain_import_errors(source: str) -> Iterator[None]:
    """Raise CannotImport, which names ``source``, for any error of reading a malformed checkpoint."""
    try:
        yield
    except (CannotImport, MissingExtra):
        raise
    except KeyError as error:
        raise CannotImport(f"{source} has no {error.args[0]}") from error
    # torch raises RuntimeError for wrong shapes and too little memory.
    except (
        ArithmeticError,
        AttributeError,
        IndexError,
        TypeError,
        ValueError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise CannotImport(f"{source} is malformed: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """Return the first 200 characters of an error's message on one line, or its type if it is empty."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        CannotImport: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CannotImport(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CannotImport(f"{file} must hold a JSON object, it holds a {type(content).__name__}")
    return content


def require_memory(needed: int, what: str) -> None:
    """Check that ``needed`` bytes are free for ``what``, a noun phrase for the message.

    Raises:
        CannotImport: less memory is free.
    """
    free = free_bytes()
    if needed > free:
        raise CannotImport(
            f"{what} needs about {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free"
        )


def read_tensors(file: Path, prefixes: tuple[str, ...] = WRAPPERS) -> dict[str, Tensor]:
    """Read the state dict of a .safetensors, .pth, .pt or .bin file; no pickled code is run.

    A prefix of ``prefixes`` is removed if all names start with it. Other pickled objects are not read.

    Raises:
        CannotImport: the file is unreadable or truncated, pickles more than tensors, or needs more memory
            than is free, by its size or by the sizes that it states.
    """
    try:
        require_memory(_content_bytes(file), str(file))
        if file.suffix == ".safetensors":
            return without_prefixes(load_file(file), prefixes)
        content, unread = load_pickled(file)
    except CannotImport:
        raise
    except UnpicklingError as error:  # torch's own message recommends to run the pickle
        raise CannotImport(
            f"{file} cannot be read safely: it is truncated, or pickles more than tensors; "
            "save a model's state_dict(), not the model"
        ) from error
    except Exception as error:  # a damaged pickle may raise anything
        reason = " ".join(str(error).split())[:200]
        raise CannotImport(f"{file} cannot be read safely: {reason}") from error
    try:
        content = without_prefixes(find_state_dict(content), prefixes)
    except ValueError as error:
        raise CannotImport(f"{file} {error}{_not_read(unread)}") from error
    # A small file may hold views that expand to tensors of any size.
    require_memory(sum(value.numel() * value.element_size() for value in content.values()), str(file))
    return content


def _not_read(classes: tuple[str, ...]) -> str:
    """Return the end of a message that names the classes of objects that are not read; empty if none."""
    if not classes:
        return ""
    named = ", ".join(classes[:_MAX_LISTED]) + (", ..." if len(classes) > _MAX_LISTED else "")
    return f"; objects of {named} are not read: save a model's state_dict(), not the model"


def read_folder_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the state dict of a folder that ``save_pretrained`` wrote: one file, or shards and their index.

    Raises:
        CannotImport: there is no such file, or it cannot be read.
    """
    for suffix, stem in ((".safetensors", "model"), (".bin", "pytorch_model")):
        index = folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            shards = sorted({_shard(name, suffix, index) for name in read_json(index)["weight_map"].values()})
            return {name: value for shard in shards for name, value in read_tensors(folder / shard).items()}
        if (folder / f"{stem}{suffix}").is_file():
            return read_tensors(folder / f"{stem}{suffix}")
    raise CannotImport(f"{folder} has neither model.safetensors nor pytorch_model.bin")


def _content_bytes(file: Path) -> int:
    """Return a file's size after decompression, bytes: torch's files are zip archives."""
    size = file.stat().st_size
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            size = max(size, sum(part.file_size for part in archive.infolist()))
    return size


def _shard(name: object, suffix: str, index: Path) -> str:
    """Check that a shard named in ``index`` is a file beside it, and return its name."""
    if not isinstance(name, str) or not name.endswith(suffix) or "/" in name:
        raise CannotImport(
            f"{index} names the shard {name!r}, which is not the name of a {suffix} file beside it"
        )
    return name
