"""The models that are served: those of the store that are wanted, as store and configuration change."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from tubelet.models.repository.model_folder import BrokenModel, Entry
from tubelet.models.repository.repository import ZOO, ModelStore, UnknownModel, is_embedded
from tubelet.service.config.config import ModelsConfig
from tubelet.service.engine.daemon_threads import in_own_thread
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.served_model import HostedModel
from tubelet.service.pipeline.registry import Catalogue
from tubelet.service.types.model_ref import ModelRef

# BrokenModel, MissingExtra and UnsupportedPrecision are RuntimeErrors, and so is what torch says of a memory
# that does not suffice. Libraries are imported with the first model that needs them.
CANNOT_LOAD = (RuntimeError, ValueError, MemoryError, ImportError)

_log = logging.getLogger(__name__)

_Key = tuple[str, str]  # name and version


class NotThere(RuntimeError):
    """The configuration names a folder or models that are not there; the message says which key does."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """A model as it was when it was loaded: a file that changes makes another one of it."""

    model: HostedModel
    entry: Entry


class Shelf:
    """Fills the catalogue: with warm models, which stay in memory until their last video is answered."""

    def __init__(self, engine: Engine, catalogue: Catalogue) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._copies: dict[_Key, _Copy] = {}
        self._one_at_a_time = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    async def refresh(self, wanted: ModelsConfig) -> None:
        """Load what is new or has changed, then take away what is not wanted any more.

        One that cannot be loaded is left out, or stays as it was; the others are served all the same.

        Raises:
            NotThere: the store that was named, or models to load, are not there. Nothing has changed.
            UnknownModel: the default model is not in the store. Nothing has changed.
            BrokenModel, MissingExtra, ...: the default model cannot be loaded,
                and no other version that models.default takes is served. Nothing has changed.
        """
        async with self._one_at_a_time:
            check_folder(wanted)
            store = await in_own_thread(partial(ModelStore, ZOO, wanted.store))
            for problem in store.broken:
                _log.error("a model cannot be loaded: %s", problem)
            default, *others = wanted_entries(store, wanted)
            _check_names(store, wanted)
            entries = {_key(entry): entry for entry in (default, *others)}
            leaving = {
                key
                for key in self._copies.keys() - entries.keys()
                if self._copies[key].entry.folder not in store.left_out  # they cannot be read just now
            }
            pinned = wanted.default_ref
            has_default = any(pinned.includes(*key) for key in self._copies.keys() - leaving)
            for key, entry in entries.items():  # the default first: nothing has changed yet where it fails
                if key not in self._copies or self._copies[key].entry != entry:
                    await self._put(store, entry, is_needed=entry is default and not has_default)
            for key in leaving:
                self._take_away(key)
            self._catalogue.set_default(pinned)
            self._catalogue.set_in_store(store.specs())

    async def _put(self, store: ModelStore, entry: Entry, *, is_needed: bool) -> None:
        spec, key = entry.spec, _key(entry)
        try:
            model = await self._engine.load(store, spec)
        except Exception as error:
            if is_needed:
                raise
            before = "stays as it was" if key in self._copies else "is not served"
            # What nobody foresaw is a fault of ours, and costs the other models nothing either.
            unforeseen = None if isinstance(error, CANNOT_LOAD) else error
            _log.error("model %s %s %s: %s", spec.name, spec.version, before, error, exc_info=unforeseen)
            return
        if key in self._copies:
            self._take_away(key)
        self._copies[key] = _Copy(model, entry)
        self._catalogue.add(model)

    def _take_away(self, key: _Key) -> None:
        model = self._copies.pop(key).model
        self._catalogue.remove(model)
        task = asyncio.create_task(self._unload(model))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _unload(self, model: HostedModel) -> None:
        await model.unused()
        self._engine.unload(model)
        _log.info("%s %s is gone", model.spec.name, model.spec.version)


def check_folder(wanted: ModelsConfig) -> None:
    """
    Raises:
        NotThere: the store that the configuration names.
    """
    # Our own default comes into being with the first import.
    if "store" in wanted.model_fields_set and not wanted.store.is_dir():
        raise NotThere(f"models.store is {str(wanted.store)!r}, but there is no such folder")


def _check_names(store: ModelStore, wanted: ModelsConfig) -> None:
    absent = [str(ref) for ref in wanted.load_refs if not _has(store, ref)]
    if absent:
        named = ", ".join(map(repr, absent))
        known = ", ".join(f"{spec.name}:{spec.version}" for spec in store.specs())
        raise NotThere(f"models.load names {named}, but there is no such model; there are: {known}")


def _has(store: ModelStore, ref: ModelRef) -> bool:
    """Whether the store has the model, even if it is broken."""
    try:
        store.find(ref.name, ref.version)
    except UnknownModel:
        return False
    except BrokenModel:
        return True
    return True


def wanted_entries(store: ModelStore, wanted: ModelsConfig) -> Iterator[Entry]:
    """Yield what the configuration has a server load: the default first, which may come again.

    An empty ``models.load`` means all models but the embedded ones.

    Raises:
        UnknownModel, BrokenModel: the default model is not there, or is broken.
    """
    yield store.find(wanted.default_ref.name, wanted.default_ref.version)
    for spec in store.specs():
        entry = store.find(spec.name, spec.version)
        named = any(ref.includes(*_key(entry)) for ref in wanted.load_refs)
        if named if wanted.load else not is_embedded(entry):
            yield entry


def _key(entry: Entry) -> _Key:
    return entry.spec.name, entry.spec.version
