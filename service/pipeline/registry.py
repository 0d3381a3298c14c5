"""The models that this server answers with, and which one a request means."""

from collections.abc import Iterator, Sequence

from tubelet.models.spec import ModelSpec
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.errors import UnknownModel, listed, quoted
from tubelet.service.types.model_ref import ModelRef


class ModelRegistry:
    """Loaded models by name and version. A default without a version is the newest one of its name."""

    def __init__(self) -> None:
        self._models: list[ServedModel] = []
        self._default = ModelRef()
        self._in_store: Sequence[ModelSpec] = ()

    @property
    def default(self) -> ServedModel:
        return self.find()

    @property
    def not_loaded(self) -> list[ModelSpec]:
        """The models that this installation has and this server does not answer with."""
        loaded = {(model.spec.name, model.spec.version) for model in self._models}
        return [spec for spec in self._in_store if (spec.name, spec.version) not in loaded]

    def __iter__(self) -> Iterator[ServedModel]:
        """The default first, where it is there."""
        yield from sorted(self._models, key=self.is_default, reverse=True)

    def is_default(self, model: ServedModel) -> bool:
        return [model] == self._matching(self._default)[-1:]

    def add(self, model: ServedModel) -> None:
        """From now on, requests may mean it; the first one is the default until ``set_default``."""
        self._models.append(model)
        self._models.sort(key=lambda model: (model.spec.name, model.spec.version_key))
        if not self._default.name:
            self._default = ModelRef(model.spec.name)

    def remove(self, model: ServedModel) -> None:
        """No new request means it."""
        self._models.remove(model)

    def set_default(self, default: ModelRef) -> None:
        """Choose the model of requests that name none, and so the version of those that name it alone."""
        self._default = default

    def set_in_store(self, specs: Sequence[ModelSpec]) -> None:
        """Note all models of this installation, so that a request for one that is not loaded hears so."""
        self._in_store = specs

    def find(self, name: str = "", version: str = "") -> ServedModel:
        """The model of that name; an empty name is the default, an empty version the default's or the newest.

        Raises:
            UnknownModel: there is none, or it is not loaded; the message names those there are.
        """
        wanted = ModelRef(name, version).or_default(self._default)
        found = self._matching(wanted)
        if found:
            return found[-1]
        versions = [model.spec.version for model in self._models if model.spec.name == wanted.name]
        at_fault, value = ("version", wanted.version) if versions else ("model", name)
        if any(wanted.includes(spec.name, spec.version) for spec in self.not_loaded):
            loaded = listed([f"{model.spec.name}:{model.spec.version}" for model in self._models])
            message = (
                f"model {quoted(str(wanted))} is in this installation but not loaded; "
                f"models.load names what is: {loaded}"
            )
        elif versions:
            message = (
                f"model {wanted.name} has no version {quoted(wanted.version)}; there are: {listed(versions)}"
            )
        else:
            known = listed(sorted({model.spec.name for model in self._models}))
            message = f"no model {quoted(name)} here; there are: {known}"
        raise UnknownModel(message, field=at_fault, value=value)

    def _matching(self, wanted: ModelRef) -> list[ServedModel]:
        """From the oldest to the newest."""
        return [model for model in self._models if wanted.includes(model.spec.name, model.spec.version)]
