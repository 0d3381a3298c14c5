"""Remove versions of a model from a store, each completely or not at all."""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tubelet.models.errors import BrokenModel, CannotRemove
from tubelet.models.repository.model_folder import SPEC, read_folder
from tubelet.models.repository.repository import model_folders


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """The folder of a model's version in a store; a broken one has the name and version of its path."""

    name: str
    version: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else self.name

    @property
    def size_bytes(self) -> int:
        """The size of all files in the folder, bytes."""
        return sum(file.lstat().st_size for file in self.folder.rglob("*"))


def stored_versions(root: Path, name: str) -> tuple[StoredVersion, ...]:
    """Find all versions of the model ``name`` in the store ``root``, broken ones too."""
    return tuple(version for version in _all_versions(root) if version.name == name)


def _all_versions(root: Path) -> Iterator[StoredVersion]:
    """Yield all versions of all models in the store ``root``, broken ones too."""
    for folder in model_folders(root):
        try:
            spec = read_folder(folder).spec
            yield StoredVersion(spec.name, spec.version, folder)
        except BrokenModel:
            name, *version = folder.relative_to(root).parts
            yield StoredVersion(name, "".join(version), folder)


def remove_version(stored: StoredVersion, root: Path) -> str:
    """Take a version out of the store ``root`` in one step, then delete its files.

    Returns a sentence that names the files which could not be deleted; empty if all were.

    Raises:
        CannotRemove: the folder also holds other versions, or it cannot be renamed.
    """
    folder = stored.folder
    if others := [file.parent for file in folder.glob(f"*/{SPEC}")]:
        raise CannotRemove(f"{folder} also holds other versions, such as {others[0]}: move them out first")
    hidden = folder.with_name(f".{folder.name}-removed-{uuid.uuid4().hex}")
    try:
        # Readers ignore names that start with a dot, so they see either the complete folder or none.
        folder.rename(hidden)
    except OSError as error:
        raise CannotRemove(f"{folder} cannot be removed: {error.strerror}; nothing was changed") from error
    try:
        shutil.rmtree(hidden)
    except OSError as error:
        return f"{hidden} is removed from the store, but its files could not be deleted: {error.strerror}"
    if folder.parent != root and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    return ""
