"""Model stores: list and find the models in folders.

A model's folder (see ``model_folder``) is ROOT/NAME or ROOT/NAME/VERSION.
"""

from pathlib import Path

from tubelet.models.errors import BrokenModel, UnknownModel
from tubelet.models.repository.model_folder import SPEC, Entry, read_folder
from tubelet.models.spec import ModelSpec

ZOO = Path(__file__).parents[1] / "zoo"
"""The store of the embedded models, which come with the package."""


class ModelStore:
    """The models in the folders ``roots``; without roots, the embedded models.

    Folders that cannot be read do not hide the others: ``broken`` has their errors, ``left_out`` the folders.
    """

    def __init__(self, *roots: Path) -> None:
        self.broken: list[BrokenModel] = []
        self.left_out: set[Path] = set()
        self._entries: list[Entry] = []
        self._problems: dict[tuple[str, ...], BrokenModel] = {}  # by the folder's (name,) or (name, version)
        for root in roots or (ZOO,):
            for folder in model_folders(root):
                try:
                    self._add(folder)
                except BrokenModel as error:
                    self.broken.append(error)
                    self.left_out.add(folder)
                    self._problems[folder.relative_to(root).parts] = error

    def specs(self) -> tuple[ModelSpec, ...]:
        """Return the specs of all models, sorted by name and version; no weights are loaded."""
        specs = [entry.spec for entry in self._entries]
        return tuple(sorted(specs, key=lambda spec: (spec.name, spec.version_key)))

    def find(self, name: str, version: str = "") -> Entry:
        """Find a model's folder; without ``version``, the newest version.

        Raises:
            UnknownModel: the store has no such model or version.
            BrokenModel: the folder is there, but cannot be used.
        """
        found = [e for e in self._entries if e.spec.name == name and version in ("", e.spec.version)]
        if not found:
            for (named, *versions), problem in self._problems.items():
                if named == name and (not versions or version in ("", *versions)):
                    raise problem
            known = tuple(f"{spec.name}:{spec.version}" for spec in self.specs())
            raise UnknownModel(name, version, known)
        return max(found, key=lambda entry: entry.spec.version_key)

    def _add(self, folder: Path) -> None:
        """Read a model's folder into the store.

        Raises:
            BrokenModel: the folder cannot be used, or another one holds the same name and version.
        """
        entry = read_folder(folder)
        for other in self._entries:
            if (other.spec.name, other.spec.version) == (entry.spec.name, entry.spec.version):
                raise BrokenModel(
                    f"{folder} holds {entry.spec.name} {entry.spec.version}, as {other.folder} does"
                )
        self._entries.append(entry)


def is_embedded(entry: Entry) -> bool:
    """Whether a model comes with the package."""
    return entry.folder.is_relative_to(ZOO)


def model_folders(root: Path) -> list[Path]:
    """Return the folders of all models in the store ``root``, broken ones too."""
    found = (*root.glob(f"*/{SPEC}"), *root.glob(f"*/*/{SPEC}"))
    # Names that start with a dot are being written, or were left behind by an interrupted write.
    return sorted(
        file.parent
        for file in found
        if not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
