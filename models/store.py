"""The model store: a folder a model, each with its spec, weights and labels; list, verify, load, write.

ROOT/NAME/model.toml            what is known without the weights: a ModelSpec, the sizes, the sha256
ROOT/NAME/weights.safetensors   our own parameter names, float32
ROOT/NAME/labels.txt            one label a line, in the order of the logits
ROOT/NAME/CARD.md               data, recipe, figures, limits
"""

import hashlib
import json
import shutil
import tempfile
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.contract import Accuracy, ModelSpec, Preprocessing, Sampling, VideoModel
from models.families import DIMS, Dims, build_model

ZOO = Path(__file__).parent / "zoo"


class UnknownModel(LookupError):
    """No such model, or version of it, in the store; ``known`` has the "name version" pairs it has."""

    def __init__(self, name: str, version: str, known: tuple[str, ...]) -> None:
        wanted = f"{name} {version}".strip()
        super().__init__(f"no model {wanted!r} in the store; it has {', '.join(known) or 'none'}")
        self.name, self.version, self.known = name, version, known


class BrokenModel(RuntimeError):
    """A model's folder cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in eval mode on its device, and its spec."""

    spec: ModelSpec
    model: VideoModel
    device: torch.device
    dtype: torch.dtype

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


@dataclass(frozen=True, slots=True)
class _Entry:
    folder: Path
    spec: ModelSpec
    dims: Dims
    sha256: str


class ModelStore:
    """The models below a folder; without one, the embedded models that come with the package.

    Raises:
        BrokenModel: a model.toml or labels.txt that cannot be read or contradicts itself.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = ZOO if root is None else root
        folders = sorted(file.parent for file in self.root.glob("*/model.toml"))
        self._entries = tuple(_read_entry(folder) for folder in folders)

    def specs(self) -> tuple[ModelSpec, ...]:
        """All models, by name and version; no weights are loaded."""
        return tuple(
            sorted((entry.spec for entry in self._entries), key=lambda spec: (spec.name, spec.version))
        )

    def spec(self, name: str, version: str = "") -> ModelSpec:
        """The spec of a model; without a version, of its newest one.

        Raises:
            UnknownModel: the store has no such model or version.
        """
        return self._entry(name, version).spec

    def load(
        self, name: str, version: str = "", *, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> LoadedModel:
        """The model in eval mode, its weights verified.

        Raises:
            UnknownModel: the store has no such model or version.
            BrokenModel: the weights are missing, not those of the spec's sha256, or of other names or shapes.
        """
        entry = self._entry(name, version)
        weights = entry.folder / "weights.safetensors"
        try:
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        except OSError as error:
            raise BrokenModel(f"{weights} cannot be read: {error.strerror}") from error
        if digest != entry.sha256:
            raise BrokenModel(f"{weights} has sha256 {digest}, but model.toml says {entry.sha256}")
        model = build_model(entry.dims, entry.spec.preprocessing, len(entry.spec.labels))
        try:
            model.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            raise BrokenModel(f"{weights} does not fit the dims of model.toml: {_one_line(error)}") from error
        model.eval().requires_grad_(False).to(device=device, dtype=dtype)
        return LoadedModel(entry.spec, model, device, dtype)

    def _entry(self, name: str, version: str) -> _Entry:
        found = [e for e in self._entries if e.spec.name == name and version in ("", e.spec.version)]
        if not found:
            known = tuple(f"{spec.name} {spec.version}" for spec in self.specs())
            raise UnknownModel(name, version, known)
        return max(found, key=lambda entry: entry.spec.version_key)


def write_model(root: Path, spec: ModelSpec, dims: Dims, model: VideoModel, card: str) -> Path:
    """Write a model's folder, whole or not at all, in the place of one of the same name; returns it."""
    root.mkdir(parents=True, exist_ok=True)
    folder = root / spec.name
    partial = Path(tempfile.mkdtemp(prefix=f".{spec.name}-", dir=root))
    try:
        partial.chmod(0o755)
        weights = partial / "weights.safetensors"
        state = {
            name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()
        }
        save_file(state, weights)
        weights.chmod(0o644)
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        (partial / "model.toml").write_text(_toml(spec, dims, sha256))
        (partial / "labels.txt").write_text("".join(f"{label}\n" for label in spec.labels))
        (partial / "CARD.md").write_text(card)
        # A folder cannot replace a full one in one step; the old one is moved aside first.
        old = partial.with_name(partial.name + "-old")
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _read_entry(folder: Path) -> _Entry:
    try:
        content = tomllib.loads((folder / "model.toml").read_text())
        labels = tuple((folder / "labels.txt").read_text().splitlines())
        family = content["family"]
        spec = ModelSpec(
            name=content["name"],
            version=content["version"],
            family=family,
            description=content["description"],
            licence=content["licence"],
            labels=labels,
            sampling=Sampling(**content["sampling"]),
            preprocessing=Preprocessing(**_tuples(content["preprocessing"])),
            accuracy=tuple(Accuracy(**figure) for figure in content.get("accuracy", [])),
        )
        return _Entry(folder, spec, DIMS[family](**_tuples(content["dims"])), content["sha256"])
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise BrokenModel(
            f"{folder} is no usable model: {type(error).__name__}: {_one_line(error)}"
        ) from error


def _toml(spec: ModelSpec, dims: Dims, sha256: str) -> str:
    head = {f.name: getattr(spec, f.name) for f in fields(spec)}
    lines = [
        f"{key} = {_value(head[key])}" for key in ("name", "version", "family", "description", "licence")
    ]
    lines.append(f"sha256 = {_value(sha256)}")
    for name, table in (("dims", dims), ("sampling", spec.sampling), ("preprocessing", spec.preprocessing)):
        lines += [
            "",
            f"[{name}]",
            *(f"{key} = {_value(value)}" for key, value in asdict(table).items() if value is not None),
        ]
    for figure in spec.accuracy:
        lines += ["", "[[accuracy]]", *(f"{key} = {_value(value)}" for key, value in asdict(figure).items())]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    # Strings, numbers and arrays of numbers are written alike in JSON and TOML.
    return json.dumps(value, ensure_ascii=False)


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
