"""The models that this server answers with, and which one a request means."""

from collections.abc import Iterator

from service.engine.hosted import HostedModel
from service.errors import UnknownModel, listed, quoted


class Catalogue:
    """Loaded models by name and version. The newest version of the default's name is the default."""

    def __init__(self) -> None:
        self._models: list[HostedModel] = []
        self._default = ""

    @property
    def default(self) -> HostedModel:
        return self.find()

    def __iter__(self) -> Iterator[HostedModel]:
        """The default first, where it is there."""
        yield from sorted(self._models, key=self.is_default, reverse=True)

    def is_default(self, model: HostedModel) -> bool:
        return [model] == self._versions(self._default)[-1:]

    def add(self, model: HostedModel) -> None:
        """From now on, requests may mean it; the first one is the default until ``set_default``."""
        self._models.append(model)
        self._models.sort(key=lambda model: (model.spec.name, model.spec.version_key))
        self._default = self._default or model.spec.name

    def remove(self, model: HostedModel) -> None:
        """No new request means it."""
        self._models.remove(model)

    def set_default(self, name: str) -> None:
        self._default = name

    def find(self, name: str = "", version: str = "") -> HostedModel:
        """The model of that name; an empty name is the default, an empty version the newest.

        Raises:
            UnknownModel: there is none; the message names those there are.
        """
        wanted = name or self._default
        versions = self._versions(wanted)
        if not versions:
            known = listed(sorted({model.spec.name for model in self._models}))
            raise UnknownModel(f"no model {quoted(name)} here; there are: {known}", field="model", value=name)
        if not version:
            return versions[-1]
        for model in versions:
            if model.spec.version == version:
                return model
        known = listed([model.spec.version for model in versions])
        raise UnknownModel(
            f"model {wanted} has no version {quoted(version)}; there are: {known}",
            field="version",
            value=version,
        )

    def _versions(self, name: str) -> list[HostedModel]:
        """From the oldest to the newest."""
        return [model for model in self._models if model.spec.name == name]
