"""A model's folder: how it is read and written. model.toml, weights.safetensors, labels.txt, CARD.md.

model.toml            what is known without the weights: a ModelSpec, the sizes, the sha256 of each file
weights.safetensors   our own parameter names, float32
labels.txt            one label a line, in the order of the logits
CARD.md               data, recipe, figures, limits
"""

import hashlib
import json
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tubelet.models.errors import MissingExtra
from tubelet.models.families.plugins import PluginDims, plugin_dims
from tubelet.models.families.registry import DIMS, Dims, build_model, build_outline, misfit
from tubelet.models.repository.fingerprint import fingerprint
from tubelet.models.repository.toml_schema import typed, typed_table, value_at
from tubelet.models.runtime.host_memory import free_bytes
from tubelet.models.spec import Accuracy, ModelSpec, Preprocessing, Provenance, Sampling
from tubelet.models.video_model import VideoModel

SPEC, WEIGHTS, LABELS, CARD = "model.toml", "weights.safetensors", "labels.txt", "CARD.md"
_HEAD = ("name", "version", "family", "description", "licence")
_ACTIVATION = "activation"  # absent in folders from before there was another than softmax


class BrokenModel(RuntimeError):
    """A model's folder cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a folder's model before its weights are read."""

    folder: Path
    spec: ModelSpec
    dims: Dims
    sha256: Mapping[str, str]  # by name of file
    logits: tuple[float, ...]  # the fingerprint

    def load(self) -> VideoModel:
        """The model in float32 on the CPU, in eval mode, its weights verified.

        Raises:
            BrokenModel: the weights are missing, not those of the sha256, of other names or shapes, or too
                many for the memory that is free.
            tubelet.models.errors.MissingExtra: the family needs a library that is not installed.
        """
        weights = self.folder / WEIGHTS
        self.verify(WEIGHTS)
        needed, free = 2 * weights.stat().st_size, free_bytes()
        if needed > free:
            raise BrokenModel(
                f"{weights} needs {needed / 2**30:.1f} GiB of memory to load, {free / 2**30:.1f} GiB are free"
            )
        try:
            # Before anything of the dims' sizes is allocated: a few weights may have any dims beside them.
            with safe_open(weights, "pt") as file:
                names: list[str] = file.keys()
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            if problem := misfit(self.outline(), shapes):
                raise BrokenModel(f"{weights} does not fit the dims of {SPEC}: {problem}")
            model = self._built(build_model)
            model.load_state_dict(load_file(weights))
        except SafetensorError as error:
            raise BrokenModel(f"{weights} cannot be read: {one_line(error)}") from error
        return model.eval().requires_grad_(False)

    def outline(self) -> VideoModel:
        """The model without weights.

        Raises:
            BrokenModel: the dims make no model, of this family or of the installed library.
            tubelet.models.errors.MissingExtra: it needs a library that is not installed.
        """
        return self._built(build_outline)

    def _built(self, build: Callable[[Dims, Preprocessing, int], VideoModel]) -> VideoModel:
        try:
            return build(self.dims, self.spec.preprocessing, len(self.spec.labels))
        except MissingExtra:
            raise
        except Exception as error:  # a library's code raises whatever a config makes it meet
            raise BrokenModel(f"the dims in {self.folder / SPEC} make no model: {one_line(error)}") from error

    def verify(self, name: str) -> None:
        """
        Raises:
            BrokenModel: the file cannot be read, or is not the one that model.toml has the sha256 of.
        """
        file = self.folder / name
        try:
            digest = _sha256(file)
        except OSError as error:
            raise BrokenModel(f"{file} cannot be read: {error.strerror}") from error
        if digest != self.sha256[name]:
            raise BrokenModel(f"{file} has sha256 {digest}, but {SPEC} says {self.sha256[name]}")


def read_folder(folder: Path) -> Entry:
    """
    Raises:
        BrokenModel: a model.toml or labels.txt that cannot be read, contradicts itself or was changed, or has
            a value of another type than its key wants.
    """
    content = _content(folder / SPEC)
    labels = tuple(_text(folder / LABELS).splitlines())
    try:
        kinds, provenance = get_type_hints(ModelSpec), content.get("provenance")
        figures = typed(tuple[Any, ...], content.get("accuracy", []), "accuracy")
        spec = ModelSpec(
            **{key: typed(kinds[key], value_at(content, key), key) for key in _HEAD},
            activation=typed(kinds[_ACTIVATION], content.get(_ACTIVATION, "softmax"), _ACTIVATION),
            labels=labels,
            sampling=typed_table(Sampling, value_at(content, "sampling"), "sampling"),
            preprocessing=typed_table(Preprocessing, value_at(content, "preprocessing"), "preprocessing"),
            accuracy=tuple(typed_table(Accuracy, figure, "accuracy") for figure in figures),
            provenance=None if provenance is None else typed_table(Provenance, provenance, "provenance"),
        )
        dims = _dims(spec.family, value_at(content, "dims"))
        sha256 = {name: typed(str, value_at(content, "sha256", name), "sha256") for name in (WEIGHTS, LABELS)}
        logits = typed(tuple[float, ...], value_at(content, "fingerprint", "logits"), "fingerprint.logits")
        entry = Entry(folder, spec, dims, sha256, logits)
    except ValueError as error:
        raise BrokenModel(f"{folder} is no usable model: {one_line(error)}") from error
    entry.verify(LABELS)
    return entry


def write_folder(folder: Path, spec: ModelSpec, dims: Dims, model: VideoModel, card: str) -> None:
    """Write a model's folder, whole or not at all, in the place of one that is there.

    Raises:
        ValueError: the model's logits are not finite, or the folder would not be read as it was written.
        BrokenModel: the folder could not be read again.
        OSError, safetensors.SafetensorError: the disk does not take it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        partial.chmod(0o755)
        save_file(_state(model), partial / WEIGHTS)
        (partial / WEIGHTS).chmod(0o644)
        (partial / LABELS).write_text("".join(f"{label}\n" for label in spec.labels), "utf-8")
        (partial / CARD).write_text(card, "utf-8")
        sha256 = {name: _sha256(partial / name) for name in (WEIGHTS, LABELS)}
        (partial / SPEC).write_text(_toml(spec, dims, sha256, fingerprint(model, spec.sampling)), "utf-8")
        written = read_folder(partial).spec
        if lost := [
            key.name for key in fields(spec) if getattr(written, key.name) != getattr(spec, key.name)
        ]:
            raise ValueError(f"{', '.join(lost)} would not be read as they are now")
        # A folder cannot replace a full one in one step; the old one is moved aside first.
        old = partial.with_name(partial.name + "-old")
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # it holds this folder, or others
            folder.parent.rmdir()


def _dims(family: str, table: object) -> Dims:
    """Return the ``[dims]`` table as the dims of its family."""
    kind = next((kind for name, kind in DIMS.items() if name == family), None)
    return plugin_dims(family, table) if kind is None else typed_table(kind, table, "dims")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _content(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(file))
    # Of too many digits, and of what is nested too deeply, tomllib leaves Python to complain.
    except (ValueError, RecursionError) as error:
        raise BrokenModel(
            f"{file.parent} is no usable model: {file} is not TOML: {one_line(error)}"
        ) from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise BrokenModel(
            f"{file.parent} is no usable model: {file} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise BrokenModel(f"{file.parent} is no usable model: {file} is not UTF-8: {error}") from error


def _state(model: VideoModel) -> dict[str, Tensor]:
    # Counters of batch norm stay integers, all else is float32.
    return {
        name: (value.float() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _toml(spec: ModelSpec, dims: Dims, sha256: Mapping[str, str], logits: tuple[float, ...]) -> str:
    head = {field.name: getattr(spec, field.name) for field in fields(spec)}
    tables = {
        "sha256": sha256,
        "fingerprint": {"logits": logits},
        "dims": dict(dims.values) if isinstance(dims, PluginDims) else asdict(dims),
        "sampling": asdict(spec.sampling),
        "preprocessing": asdict(spec.preprocessing),
    }
    if spec.provenance is not None:
        tables["provenance"] = asdict(spec.provenance)
    lines = [f"{key} = {_value(head[key])}" for key in (*_HEAD, _ACTIVATION)]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_pairs(table)]
    for figure in spec.accuracy:
        lines += ["", "[[accuracy]]", *_pairs(asdict(figure))]
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, object]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None]


def _key(name: str) -> str:
    return _value(name) if "." in name else name


def _value(value: object) -> str:
    # Strings, numbers and arrays of numbers are written alike in JSON and TOML.
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
