"""The models that are served: those of the store that are wanted, as store and configuration change."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from tubelet.models.repository.model_folder import BrokenModel, Entry
from tubelet.models.repository.repository import ZOO, ModelStore, UnknownModel, is_embedded
from tubelet.service.config.config import ModelsConfig
from tubelet.service.engine.daemon_threads import run_in_daemon_thread
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.types.model_ref import ModelRef

# BrokenModel, MissingExtra and UnsupportedPrecision are RuntimeErrors, and so is what torch says of a memory
# that does not suffice. Libraries are imported with the first model that needs them.
CANNOT_LOAD = (RuntimeError, ValueError, MemoryError, ImportError)

_log = logging.getLogger(__name__)

_Key = tuple[str, str]  # name and version


class MissingModels(RuntimeError):
    """The configuration names a folder or models that are not there; the message says which key does."""


@dataclass(frozen=True, slots=True)
class _LoadedModel:
    """A model as it was when it was loaded: a file that changes makes another one of it."""

    model: ServedModel
    entry: Entry


class ModelManager:
    """Fills the catalogue: with warm models, which stay in memory until their last video is answered."""

    def __init__(self, engine: Engine, registry: ModelRegistry) -> None:
        self._engine = engine
        self._registry = registry
        self._loaded: dict[_Key, _LoadedModel] = {}
        self._lock = asyncio.Lock()
        self._unloading: set[asyncio.Task[None]] = set()

    async def reload(self, wanted: ModelsConfig) -> None:
        """Load what is new or has changed, then take away what is not wanted any more.

        One that cannot be loaded is left out, or stays as it was; the others are served all the same.

        Raises:
            MissingModels: the store that was named, or models to load, are not there. Nothing has changed.
            UnknownModel: the default model is not in the store. Nothing has changed.
            BrokenModel, MissingExtra, ...: the default model cannot be loaded,
                and no other version that models.default takes is served. Nothing has changed.
        """
        async with self._lock:
            check_folder(wanted)
            store = await run_in_daemon_thread(partial(ModelStore, ZOO, wanted.store))
            for problem in store.broken:
                _log.error("a model cannot be loaded: %s", problem)
            default, *others = wanted_entries(store, wanted)
            _check_names(store, wanted)
            entries = {_key(entry): entry for entry in (default, *others)}
            leaving = {
                key
                for key in self._loaded.keys() - entries.keys()
                if self._loaded[key].entry.folder not in store.left_out  # they cannot be read just now
            }
            pinned = wanted.default_ref
            has_default = any(pinned.includes(*key) for key in self._loaded.keys() - leaving)
            for key, entry in entries.items():  # the default first: nothing has changed yet where it fails
                if key not in self._loaded or self._loaded[key].entry != entry:
                    await self._load(store, entry, is_needed=entry is default and not has_default)
            for key in leaving:
                self._retire(key)
            self._registry.set_default(pinned)
            self._registry.set_in_store(store.specs())

    async def _load(self, store: ModelStore, entry: Entry, *, is_needed: bool) -> None:
        spec, key = entry.spec, _key(entry)
        try:
            model = await self._engine.load(store, spec)
        except Exception as error:
            if is_needed:
                raise
            before = "stays as it was" if key in self._loaded else "is not served"
            # What nobody foresaw is a fault of ours, and costs the other models nothing either.
            unforeseen = None if isinstance(error, CANNOT_LOAD) else error
            _log.error("model %s %s %s: %s", spec.name, spec.version, before, error, exc_info=unforeseen)
            return
        if key in self._loaded:
            self._retire(key)
        self._loaded[key] = _LoadedModel(model, entry)
        self._registry.add(model)

    def _retire(self, key: _Key) -> None:
        model = self._loaded.pop(key).model
        self._registry.remove(model)
        task = asyncio.create_task(self._unload(model))
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    async def _unload(self, model: ServedModel) -> None:
        await model.wait_idle()
        self._engine.unload(model)
        _log.info("%s %s is gone", model.spec.name, model.spec.version)


def check_folder(wanted: ModelsConfig) -> None:
    """
    Raises:
        MissingModels: the store that the configuration names.
    """
    # Our own default comes into being with the first import.
    if "store" in wanted.model_fields_set and not wanted.store.is_dir():
        raise MissingModels(f"models.store is {str(wanted.store)!r}, but there is no such folder")


def _check_names(store: ModelStore, wanted: ModelsConfig) -> None:
    absent = [str(ref) for ref in wanted.load_refs if not _has(store, ref)]
    if absent:
        named = ", ".join(map(repr, absent))
        known = ", ".join(f"{spec.name}:{spec.version}" for spec in store.specs())
        raise MissingModels(f"models.load names {named}, but there is no such model; there are: {known}")


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
