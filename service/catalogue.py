"""The models that this server answers with, and which one a request means."""

from collections.abc import Iterator

from service.engine.hosted import HostedModel
from service.errors import UnknownModel


class Catalogue:
    """Loaded models by name and version; the first is the default."""

    def __init__(self, models: tuple[HostedModel, ...]) -> None:
        self._models = models

    @property
    def default(self) -> HostedModel:
        return self._models[0]

    def __iter__(self) -> Iterator[HostedModel]:
        return iter(self._models)

    def find(self, name: str = "", version: str = "") -> HostedModel:
        """The model of that name; an empty name is the default, an empty version the newest.

        Raises:
            UnknownModel: there is none; the message names those there are.
        """
        wanted = name or self.default.spec.name
        versions = [model for model in self._models if model.spec.name == wanted]
        if not versions:
            known = ", ".join(sorted({model.spec.name for model in self._models}))
            raise UnknownModel(f"no model {name!r} here; there are: {known}", field="model", value=name)
        if not version:
            return max(versions, key=lambda model: model.spec.version_key)
        for model in versions:
            if model.spec.version == version:
                return model
        known = ", ".join(model.spec.version for model in versions)
        raise UnknownModel(
            f"model {wanted} has no version {version!r}; there are: {known}", field="version", value=version
        )
