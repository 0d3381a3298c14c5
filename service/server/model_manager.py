"""The model manager: loads the configured models of the store, and reloads what has changed."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from tubelet.models.errors import BrokenModel, UnknownModel
from tubelet.models.repository.model_folder import Entry
from tubelet.models.repository.repository import ZOO, ModelStore, is_embedded
from tubelet.service.config.config import ModelsConfig
from tubelet.service.engine.daemon_threads import run_in_daemon_thread
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.types.model_ref import ModelRef

# BrokenModel, MissingExtra and UnsupportedPrecision are RuntimeErrors, and so is torch's error for too little
# memory. A library is imported with the first model that needs it.
LOAD_ERRORS = (RuntimeError, ValueError, MemoryError, ImportError)

_log = logging.getLogger(__name__)

_Key = tuple[str, str]  # name and version


class MissingModels(RuntimeError):
    """The configured store or a configured model does not exist; the message names the key."""


@dataclass(frozen=True, slots=True)
class _LoadedModel:
    """A loaded model, and the entry of the store that it was loaded from; changed files change the entry."""

    model: ServedModel
    entry: Entry


class ModelManager:
    """Loads models into the engine, and keeps the registry up to date.

    A model that is retired stays in memory until its last video is answered.
    """

    def __init__(self, engine: Engine, registry: ModelRegistry) -> None:
        self._engine = engine
        self._registry = registry
        self._loaded: dict[_Key, _LoadedModel] = {}
        self._lock = asyncio.Lock()
        self._unloading: set[asyncio.Task[None]] = set()

    async def reload(self, wanted: ModelsConfig) -> None:
        """Load the models that ``wanted`` chooses, if they are new or changed; then retire all others.

        A model that cannot be loaded is left out; if it is loaded already, the old one is kept. Other models
        are not affected.

        Raises:
            MissingModels: the configured store or a model to load does not exist. Nothing has changed.
            UnknownModel: the default model is not in the store. Nothing has changed.
            BrokenModel, MissingExtra, ...: the default model cannot be loaded,
                and no loaded version can be the default in its place. Nothing has changed.
        """
        async with self._lock:
            check_folder(wanted)
            store = await run_in_daemon_thread(partial(ModelStore, ZOO, wanted.store))
            for problem in store.broken:
                _log.error("cannot load a model: %s", problem)
            default, *others = wanted_entries(store, wanted)
            _check_names(store, wanted)
            entries = {_key(entry): entry for entry in (default, *others)}
            leaving = {
                key
                for key in self._loaded.keys() - entries.keys()
                if self._loaded[key].entry.folder
                not in store.left_out  # keep what cannot be read at the moment
            }
            pinned = wanted.default_ref
            has_default = any(pinned.includes(*key) for key in self._loaded.keys() - leaving)
            for key, entry in entries.items():  # the default first: if it fails, nothing has changed
                if key not in self._loaded or self._loaded[key].entry != entry:
                    await self._load(store, entry, is_needed=entry is default and not has_default)
            for key in leaving:
                self._retire(key)
            self._registry.set_default(pinned)
            self._registry.set_in_store(store.specs())

    async def _load(self, store: ModelStore, entry: Entry, *, is_needed: bool) -> None:
        """Load the model of ``entry`` in place of its loaded copy; raise errors only if it ``is_needed``."""
        spec, key = entry.spec, _key(entry)
        try:
            model = await self._engine.load(store, spec)
        except Exception as error:
            if is_needed:
                raise
            effect = "the loaded one is kept" if key in self._loaded else "it is not served"
            # An unexpected error is a bug of ours: log its traceback, and go on with the other models.
            unexpected = None if isinstance(error, LOAD_ERRORS) else error
            _log.error(
                "cannot load model %s %s, %s: %s", spec.name, spec.version, effect, error, exc_info=unexpected
            )
            return
        if key in self._loaded:
            self._retire(key)
        self._loaded[key] = _LoadedModel(model, entry)
        self._registry.add(model)

    def _retire(self, key: _Key) -> None:
        """Remove a model from the registry, and unload it in the background."""
        model = self._loaded.pop(key).model
        self._registry.remove(model)
        task = asyncio.create_task(self._unload(model))
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    async def _unload(self, model: ServedModel) -> None:
        """Unload ``model`` once no video uses it."""
        await model.wait_idle()
        self._engine.unload(model)
        _log.info("unloaded model %s %s", model.spec.name, model.spec.version)


def check_folder(wanted: ModelsConfig) -> None:
    """Check that the configured store exists.

    Raises:
        MissingModels: it does not.
    """
    # The default store is created by the first import, so it may be absent.
    if "store" in wanted.model_fields_set and not wanted.store.is_dir():
        raise MissingModels(f"models.store is {str(wanted.store)!r}, but that folder does not exist")


def _check_names(store: ModelStore, wanted: ModelsConfig) -> None:
    """Check that all models of ``models.load`` exist.

    Raises:
        MissingModels: some do not.
    """
    absent = [str(ref) for ref in wanted.load_refs if not _has(store, ref)]
    if absent:
        named = ", ".join(map(repr, absent))
        known = ", ".join(f"{spec.name}:{spec.version}" for spec in store.specs())
        raise MissingModels(f"models.load names {named}, which the store does not have; it has: {known}")


def _has(store: ModelStore, ref: ModelRef) -> bool:
    """Return whether the store has the model ``ref``, even if it is broken."""
    try:
        store.find(ref.name, ref.version)
    except UnknownModel:
        return False
    except BrokenModel:
        return True
    return True


def wanted_entries(store: ModelStore, wanted: ModelsConfig) -> Iterator[Entry]:
    """Yield the entries of the models that the configuration chooses, the default first and maybe twice.

    An empty ``models.load`` chooses all models but the embedded ones.

    Raises:
        UnknownModel, BrokenModel: the default model does not exist, or is broken.
    """
    yield store.find(wanted.default_ref.name, wanted.default_ref.version)
    for spec in store.specs():
        entry = store.find(spec.name, spec.version)
        named = any(ref.includes(*_key(entry)) for ref in wanted.load_refs)
        if named if wanted.load else not is_embedded(entry):
            yield entry


def _key(entry: Entry) -> _Key:
    """Return the name and version of an entry's model."""
    return entry.spec.name, entry.spec.version
