"""The model store: folders of models; list, find, load.

ROOT/NAME/model.toml or ROOT/NAME/VERSION/model.toml, with the other files of
``model_folder`` beside it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from tubelet.models.repository.model_folder import SPEC, BrokenModel, Entry, read_folder
from tubelet.models.spec import ModelSpec
from tubelet.models.video_model import VideoModel

ZOO = Path(__file__).parents[1] / "zoo"


class UnknownModel(LookupError):
    """No such model, or version of it, in the store; ``known`` has what there is, as NAME:VERSION."""

    def __init__(self, name: str, version: str, known: tuple[str, ...]) -> None:
        wanted = f"{name}:{version}" if version else name
        super().__init__(f"no model {wanted!r} in the store; it has {', '.join(known) or 'none'}")
        self.name, self.version, self.known = name, version, known


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


class ModelStore:
    """The models below some folders; without any, the embedded models that come with the package.

    What cannot be read is left out and said in ``broken``: one bad folder does not hide the others.
    ``left_out`` are these folders.
    """

    def __init__(self, *roots: Path) -> None:
        self.broken: list[BrokenModel] = []
        self.left_out: set[Path] = set()
        self._entries: list[Entry] = []
        self._problems: dict[tuple[str, ...], BrokenModel] = {}  # by name, or name and version, of folders
        for root in roots or (ZOO,):
            for folder in model_folders(root):
                try:
                    self._add(folder)
                except BrokenModel as error:
                    self.broken.append(error)
                    self.left_out.add(folder)
                    self._problems[folder.relative_to(root).parts] = error

    def specs(self) -> tuple[ModelSpec, ...]:
        """All models, by name and version; no weights are loaded."""
        specs = [entry.spec for entry in self._entries]
        return tuple(sorted(specs, key=lambda spec: (spec.name, spec.version_key)))

    def find(self, name: str, version: str = "") -> Entry:
        """A model's folder; without a version, its newest one's.

        Raises:
            UnknownModel: the store has no such model or version.
            BrokenModel: there is a folder of that name, but it was left out.
        """
        found = [e for e in self._entries if e.spec.name == name and version in ("", e.spec.version)]
        if not found:
            for (named, *versions), problem in self._problems.items():
                if named == name and (not versions or version in ("", *versions)):
                    raise problem
            known = tuple(f"{spec.name}:{spec.version}" for spec in self.specs())
            raise UnknownModel(name, version, known)
        return max(found, key=lambda entry: entry.spec.version_key)

    def load(
        self, name: str, version: str = "", *, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> LoadedModel:
        """The model in eval mode, its weights verified.

        Raises:
            UnknownModel: the store has no such model or version.
            BrokenModel: the weights are missing, not those of the spec's sha256, or of other names or shapes.
        """
        entry = self.find(name, version)
        return LoadedModel(entry.spec, entry.load().to(device=device, dtype=dtype), device, dtype)

    def _add(self, folder: Path) -> None:
        entry = read_folder(folder)
        for other in self._entries:
            if (other.spec.name, other.spec.version) == (entry.spec.name, entry.spec.version):
                raise BrokenModel(
                    f"{folder} holds {entry.spec.name} {entry.spec.version}, as {other.folder} does"
                )
        self._entries.append(entry)


def is_embedded(entry: Entry) -> bool:
    """Whether the model comes with the package."""
    return entry.folder.is_relative_to(ZOO)


def model_folders(root: Path) -> list[Path]:
    """All folders of models below ``root``, also those that cannot be used."""
    found = (*root.glob(f"*/{SPEC}"), *root.glob(f"*/*/{SPEC}"))
    # What starts with a dot is being written, or was left by a write that was cut off.
    return sorted(
        file.parent
        for file in found
        if not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
