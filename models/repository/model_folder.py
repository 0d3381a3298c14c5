"""Read and write the folder of a model.

model.toml            a ModelSpec, the sizes (dims), the sha256 of weights and labels, a fixed clip's logits
weights.safetensors   the weights under tubelet's parameter names, in float32
labels.txt            one label a line, in logit order
CARD.md               data, recipe, figures, limits
further files         of a training: its page, and the clips that it used; a model loads without them
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tubelet.models.errors import BrokenModel, MissingExtra
from tubelet.models.families.plugins import PluginDims, plugin_dims
from tubelet.models.families.registry import DIMS, Dims, build_model, build_on_meta, describe_mismatch
from tubelet.models.repository.fingerprint import fingerprint, fixed_clip_logits
from tubelet.models.repository.partial_folder import partial_folder
from tubelet.models.repository.publish import publish_folder
from tubelet.models.repository.toml_schema import parse_table, parse_value, value_at
from tubelet.models.runtime.host_memory import free_bytes
from tubelet.models.spec import Accuracy, ModelSpec, Preprocessing, Provenance, Sampling
from tubelet.models.video_model import VideoModel

SPEC, WEIGHTS, LABELS, CARD = "model.toml", "weights.safetensors", "labels.txt", "CARD.md"
_REQUIRED_KEYS = ("name", "version", "family", "description", "licence")
_ACTIVATION = "activation"  # older folders lack this key; it is softmax there


@dataclass(frozen=True, slots=True)
class Entry:
    """A model's folder whose model.toml and labels were read, but not its weights."""

    folder: Path
    spec: ModelSpec
    dims: Dims
    sha256: Mapping[str, str]  # of each file, by its name
    logits: tuple[float, ...]  # of the fixed clip
    fingerprint: str

    def load(self) -> VideoModel:
        """Load the model in float32 on the CPU, in eval mode, and verify its weights.

        Raises:
            BrokenModel: the weights are missing, have another sha256, other names or shapes, or need more
                memory than is free.
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
            # Checked before anything is allocated: dims of any size may stand beside a few weights.
            with safe_open(weights, "pt") as file:
                names: list[str] = file.keys()
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            if problem := describe_mismatch(self.on_meta(), shapes):
                raise BrokenModel(f"{weights} does not fit the dims of {SPEC}: {problem}")
            model = self._build(build_model)
            model.load_state_dict(load_file(weights))
        except SafetensorError as error:
            raise BrokenModel(f"{weights} cannot be read: {one_line(error)}") from error
        return model.eval().requires_grad_(False)

    def on_meta(self) -> VideoModel:
        """Build the model without weights, on torch's meta device.

        Raises:
            BrokenModel: the family, or the installed library, cannot build a model of these dims.
            tubelet.models.errors.MissingExtra: the family needs a library that is not installed.
        """
        return self._build(build_on_meta)

    def _build(self, build: Callable[[Dims, Preprocessing, int], VideoModel]) -> VideoModel:
        """Call ``build`` with this folder's dims; errors other than MissingExtra become BrokenModel."""
        try:
            return build(self.dims, self.spec.preprocessing, len(self.spec.labels))
        except MissingExtra:
            raise
        except Exception as error:  # a library may raise anything on a bad config
            raise BrokenModel(
                f"the dims in {self.folder / SPEC} cannot be built: {one_line(error)}"
            ) from error

    def verify(self, name: str) -> None:
        """Compare the sha256 of the folder's file ``name`` with that in model.toml.

        Raises:
            BrokenModel: the file cannot be read, or has another sha256.
        """
        file = self.folder / name
        try:
            digest = _sha256(file)
        except OSError as error:
            raise BrokenModel(f"{file} cannot be read: {error.strerror}") from error
        if digest != self.sha256[name]:
            raise BrokenModel(f"{file} has sha256 {digest}, but {SPEC} says {self.sha256[name]}")


def read_folder(folder: Path) -> Entry:
    """Read model.toml and labels.txt of a model's folder.

    Raises:
        BrokenModel: one of the files cannot be read, or labels.txt was changed, or model.toml lacks a key or
            has a value that its key does not allow.
    """
    content = _content(folder / SPEC)
    labels = tuple(_text(folder / LABELS).splitlines())
    try:
        kinds, provenance = get_type_hints(ModelSpec), content.get("provenance")
        figures = parse_value(tuple[Any, ...], content.get("accuracy", []), "accuracy")
        spec = ModelSpec(
            **{key: parse_value(kinds[key], value_at(content, key), key) for key in _REQUIRED_KEYS},
            activation=parse_value(kinds[_ACTIVATION], content.get(_ACTIVATION, "softmax"), _ACTIVATION),
            labels=labels,
            sampling=parse_table(Sampling, value_at(content, "sampling"), "sampling"),
            preprocessing=parse_table(Preprocessing, value_at(content, "preprocessing"), "preprocessing"),
            accuracy=tuple(parse_table(Accuracy, figure, "accuracy") for figure in figures),
            provenance=None if provenance is None else parse_table(Provenance, provenance, "provenance"),
        )
        dims = _dims(spec.family, value_at(content, "dims"))
        sha256 = {
            name: parse_value(str, value_at(content, "sha256", name), "sha256") for name in (WEIGHTS, LABELS)
        }
        logits = parse_value(
            tuple[float, ...], value_at(content, "fingerprint", "logits"), "fingerprint.logits"
        )
        entry = Entry(folder, spec, dims, sha256, logits, fingerprint(content))
    except ValueError as error:
        raise BrokenModel(f"{folder} is no usable model: {one_line(error)}") from error
    entry.verify(LABELS)
    return entry


def write_folder(
    folder: Path,
    spec: ModelSpec,
    dims: Dims,
    model: VideoModel,
    card: str,
    texts: Mapping[str, str] = MappingProxyType({}),
    *,
    overwrite: bool = True,
) -> None:
    """Write a model's folder, completely or not at all; with ``overwrite``, an existing folder is replaced.

    ``texts`` are further files, by their names.

    Raises:
        ValueError: the model's logits are not finite, or reading the folder would give another ``spec``.
        BrokenModel: the written folder cannot be read.
        OSError, safetensors.SafetensorError: the files cannot be written, or the folder exists.
    """
    with partial_folder(folder) as partial:
        partial.chmod(0o755)
        save_file(_state(model), partial / WEIGHTS)
        (partial / WEIGHTS).chmod(0o644)
        (partial / LABELS).write_text("".join(f"{label}\n" for label in spec.labels), "utf-8")
        for name, text in {CARD: card, **texts}.items():
            (partial / name).write_text(text, "utf-8", errors="backslashreplace")
        sha256 = {name: _sha256(partial / name) for name in (WEIGHTS, LABELS)}
        (partial / SPEC).write_text(
            _toml(spec, dims, sha256, fixed_clip_logits(model, spec.sampling)), "utf-8"
        )
        written = read_folder(partial).spec
        if lost := [
            key.name for key in fields(spec) if getattr(written, key.name) != getattr(spec, key.name)
        ]:
            raise ValueError(f"{', '.join(lost)} would be read with other values")
        publish_folder(partial, folder, overwrite=overwrite)


def _dims(family: str, table: object) -> Dims:
    """Convert the ``[dims]`` table of a model.toml to the dims of ``family``."""
    kind = next((kind for name, kind in DIMS.items() if name == family), None)
    return plugin_dims(family, table) if kind is None else parse_table(kind, table, "dims")


def one_line(error: Exception) -> str:
    """Return an error's message with its line breaks and runs of blanks as one blank."""
    return " ".join(str(error).split())


def _content(file: Path) -> dict[str, Any]:
    """Parse a model.toml; errors become BrokenModel."""
    try:
        return tomllib.loads(_text(file))
    # tomllib lets Python's own errors through for numbers of too many digits and for too deep nesting.
    except (ValueError, RecursionError) as error:
        raise BrokenModel(
            f"{file.parent} is no usable model: {file} is not TOML: {one_line(error)}"
        ) from error


def _text(file: Path) -> str:
    """Read a text file of a model's folder; errors become BrokenModel."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise BrokenModel(
            f"{file.parent} is no usable model: {file} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise BrokenModel(f"{file.parent} is no usable model: {file} is not UTF-8: {error}") from error


def _state(model: VideoModel) -> dict[str, Tensor]:
    """Return the state dict to store: float32 on the CPU; batch norm's counters stay integers."""
    return {
        name: (value.float() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def _sha256(file: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _toml(spec: ModelSpec, dims: Dims, sha256: Mapping[str, str], logits: tuple[float, ...]) -> str:
    """Return the text of a model.toml."""
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
    lines = [f"{key} = {_value(head[key])}" for key in (*_REQUIRED_KEYS, _ACTIVATION)]
    for name, table in tables.items():
        lines += _table(name, table)
    for figure in spec.accuracy:
        lines += ["", "[[accuracy]]", *_pairs(asdict(figure))]
    return "\n".join(lines) + "\n"


def _table(name: str, table: Mapping[str, object]) -> list[str]:
    """Return the lines of a table of TOML and of the tables inside it."""
    nested = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    pairs = _pairs({key: value for key, value in table.items() if key not in nested})
    lines = ["", f"[{name}]", *pairs] if pairs or not nested else []
    for key, inner in nested.items():
        lines += _table(f"{name}.{key}", inner)
    return lines


def _pairs(table: Mapping[str, object]) -> list[str]:
    """Return a line of TOML for each key whose value is not None."""
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None]


def _key(name: str) -> str:
    """Return a key in TOML, in quotes if it has a dot, as names of files have."""
    return _value(name) if "." in name else name


def _value(value: object) -> str:
    """Return a value in TOML, which writes strings, numbers and arrays of them as JSON does."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
