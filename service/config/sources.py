"""Sources of the configuration's values: environment and file. A token of a stronger source beats both ways.

Sources are merged key by key. But ``client.token`` and ``client.token_file`` are one value in two forms: to
merge them would set both, which is an error.
"""

from typing import Any

from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

_TOKEN = ("token", "token_file")


class Environment(EnvSettingsSource):
    """The variables of the environment."""

    def __call__(self) -> dict[str, Any]:
        return _without_beaten_token(super().__call__(), self.current_state)


class File(TomlConfigSettingsSource):
    """The file of the configuration."""

    def __call__(self) -> dict[str, Any]:
        return _without_beaten_token(super().__call__(), self.current_state)


def _without_beaten_token(found: dict[str, Any], stronger: dict[str, Any]) -> dict[str, Any]:
    """Return ``found`` without a token of the client if the ``stronger`` sources have one, in either form."""
    client, beats = found.get("client"), stronger.get("client")
    if not (isinstance(client, dict) and isinstance(beats, dict) and any(map(beats.get, _TOKEN))):
        return found
    return found | {"client": {key: value for key, value in client.items() if key not in _TOKEN}}
