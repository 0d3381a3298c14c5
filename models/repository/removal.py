"""Removes versions of a model from a store's folder, each at once or not at all."""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tubelet.models.repository.model_folder import SPEC, BrokenModel, read_folder
from tubelet.models.repository.repository import model_folders


class CannotRemove(RuntimeError):
    """A model's folder stays where it is; the message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version's folder in a store, which may be broken: then its name and version are those of its path."""

    name: str
    version: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else self.name

    @property
    def size_bytes(self) -> int:
        return sum(file.lstat().st_size for file in self.folder.rglob("*"))


def stored_versions(root: Path, name: str) -> tuple[StoredVersion, ...]:
    """All versions of a model below ``root``, also those that cannot be used."""
    return tuple(version for version in _all_versions(root) if version.name == name)


def _all_versions(root: Path) -> Iterator[StoredVersion]:
    for folder in model_folders(root):
        try:
            spec = read_folder(folder).spec
            yield StoredVersion(spec.name, spec.version, folder)
        except BrokenModel:
            name, *version = folder.relative_to(root).parts
            yield StoredVersion(name, "".join(version), folder)


def remove_version(stored: StoredVersion, root: Path) -> str:
    """Take a version out of the store ``root`` in one step, then delete its files.

    Returns what could not be deleted, in a sentence; empty if nothing is left.

    Raises:
        CannotRemove: the folder holds other versions, too, or the file system does not let it go.
    """
    folder = stored.folder
    if others := [file.parent for file in folder.glob(f"*/{SPEC}")]:
        raise CannotRemove(f"{folder} holds other versions, too, such as {others[0]}: move them out first")
    hidden = folder.with_name(f".{folder.name}-removed-{uuid.uuid4().hex}")
    try:
        # What starts with a dot is no model of the store: a reader sees all of the folder or nothing.
        folder.rename(hidden)
    except OSError as error:
        raise CannotRemove(f"{folder} cannot be removed: {error.strerror}; nothing was changed") from error
    try:
        shutil.rmtree(hidden)
    except OSError as error:
        return f"{hidden} is no model any more, but could not be deleted: {error.strerror}"
    if folder.parent != root and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    return ""
