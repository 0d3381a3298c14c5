"""The model registry: the loaded models, found by name and version."""

from collections.abc import Iterator, Sequence

from tubelet.models.spec import ModelSpec
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.errors import UnknownModel
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.quoting import listed, quoted


class ModelRegistry:
    """Loaded models by name and version. A default without a version is the newest version of its name."""

    def __init__(self) -> None:
        self._models: list[ServedModel] = []
        self._default = ModelRef()
        self._in_store: Sequence[ModelSpec] = ()

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none."""
        return self.find()

    @property
    def not_loaded(self) -> list[ModelSpec]:
        """The specs of models that this installation has and this server has not loaded."""
        loaded = {(model.spec.name, model.spec.version) for model in self._models}
        return [spec for spec in self._in_store if (spec.name, spec.version) not in loaded]

    def __iter__(self) -> Iterator[ServedModel]:
        """Yield the loaded models, the default first if it is loaded."""
        yield from sorted(self._models, key=self.is_default, reverse=True)

    def is_default(self, model: ServedModel) -> bool:
        """Return whether requests that name no model get ``model``."""
        return [model] == self._matching(self._default)[-1:]

    def add(self, model: ServedModel) -> None:
        """Let requests find ``model``. The first model added is the default until ``set_default``."""
        self._models.append(model)
        self._models.sort(key=lambda model: (model.spec.name, model.spec.version_key))
        if not self._default.name:
            self._default = ModelRef(model.spec.name)

    def remove(self, model: ServedModel) -> None:
        """Let no new request find ``model``."""
        self._models.remove(model)

    def set_default(self, default: ModelRef) -> None:
        """Set the default model: that of requests that name none.

        Its version is also the default for requests that give only its name.
        """
        self._default = default

    def set_in_store(self, specs: Sequence[ModelSpec]) -> None:
        """Set the ``specs`` of all installed models, so that errors can tell which are not loaded."""
        self._in_store = specs

    def find(self, name: str = "", version: str = "") -> ServedModel:
        """Return the model with this ``name`` and ``version``.

        An empty name is the default model. An empty version is the default's if it has this name, or else the
        newest.

        Raises:
            UnknownModel: no such model exists, or it is not loaded; the message lists the loaded ones.
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
                f"model {quoted(str(wanted))} is installed but not loaded; "
                f"models.load chooses the loaded models: {loaded}"
            )
        elif versions:
            message = (
                f"model {wanted.name} has no version {quoted(wanted.version)}; "
                f"loaded versions: {listed(versions)}"
            )
        else:
            known = listed(sorted({model.spec.name for model in self._models}))
            message = f"unknown model {quoted(name)}; loaded models: {known}"
        raise UnknownModel(message, field=at_fault, value=value)

    def _matching(self, wanted: ModelRef) -> list[ServedModel]:
        """Return the loaded models that ``wanted`` includes, from the oldest version to the newest."""
        return [model for model in self._models if wanted.includes(model.spec.name, model.spec.version)]
