"""The configuration that the manifests give to a replica."""

from pathlib import Path

import pytest

from tests.support.manifests import container, only, pod
from tubelet.service.config.config import Config, load_config


@pytest.fixture
def config_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The configuration that a replica reads: its file, as mounted, and its environment."""

    def load(folder: str) -> Config:
        (path,) = (argument for argument in container(folder)["args"] if argument.startswith("/"))
        (mount,) = (m for m in container(folder)["volumeMounts"] if path.startswith(m["mountPath"] + "/"))
        (volume,) = (v for v in pod(folder)["volumes"] if v["name"] == mount["name"])
        config_map = only(folder, "ConfigMap")
        assert config_map["metadata"]["name"] == volume["configMap"]["name"]
        file = tmp_path / "tubelet.toml"
        file.write_text(config_map["data"][path.removeprefix(mount["mountPath"] + "/")])
        for variable in container(folder).get("env", []):
            monkeypatch.setenv(variable["name"], variable["value"])
        return load_config(file)

    return load
