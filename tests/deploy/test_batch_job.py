"""The Job of a batch: it renders, is valid, grants what its configuration needs, and its command is one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.container_image import containerfile, project
from tests.support.manifests import most_decoder_bytes, mounted, needs_kubectl, only, render
from tests.support.sample_clip import panning_clip
from tubelet.service.cli.app import app
from tubelet.service.config.config import GIB, MIB, Config, load_config

pytestmark = needs_kubectl
_UNITS = {"Gi": GIB, "Mi": MIB}
_PROCESS_BYTES = 1 * GIB  # as a server itself may take
KUBERNETES = "1.30"


def spec() -> dict[str, Any]:
    return only("batch", "Job")["spec"]


def container() -> dict[str, Any]:
    (found,) = spec()["template"]["spec"]["containers"]
    return found


def arguments() -> list[str]:
    return container()["args"]


def quantity(text: str) -> int:
    """A Kubernetes quantity in bytes."""
    number, unit = re.fullmatch(r"(\d+)(\w\w)", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return int(number) * _UNITS[unit]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The configuration that a shard reads."""
    file = tmp_path / "batch.toml"
    path = arguments()[arguments().index("--config") + 1]
    mount, volume = mounted(container(), spec()["template"]["spec"], str(Path(path).parent))
    config_map = only("batch", "ConfigMap")
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    file.write_text(config_map["data"][path.removeprefix(mount["mountPath"] + "/")])
    return load_config(file)


def test_manifests_are_valid() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    resources = render("batch")
    assert {resource["kind"] for resource in resources} == {"ConfigMap", "Job", "NetworkPolicy"}
    for resource in resources:
        for version in (KUBERNETES, validator.latest_version()):
            validator.validate(resource, version, strict=True)


def test_each_index_is_a_shard_of_as_many_as_there_are() -> None:
    job, (variable,) = spec(), container()["env"]
    assert job["completionMode"] == "Indexed"
    shard = arguments()[arguments().index("--shard") + 1]
    assert shard == f"$({variable['name']})/{job['completions']}"
    annotation = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == annotation


def test_the_command_of_a_shard_classifies_its_videos(tmp_path: Path, config: Config) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "clip.mp4").write_bytes(panning_clip(1.0))
    replaced = {
        "s3://corpus/videos": str(tmp_path / "videos"),
        "s3://corpus/rows": str(tmp_path / "rows"),
        "/etc/tubelet/batch.toml": str(tmp_path / "batch.toml"),
        "8502": "0",
    }
    counts = []
    for index in range(spec()["completions"]):
        command = [replaced.get(each, each).replace("$(SHARD)", str(index)) for each in arguments()]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        counts.append("1 classified" in done.output)
    assert sorted(counts) == [False] * 7 + [True]


def test_memory_and_storage_cover_the_configuration(config: Config) -> None:
    limits = container()["resources"]["limits"]
    jobs = int(arguments()[arguments().index("--jobs") + 1])
    videos = jobs * config.decode.shared_memory_bytes
    assert _PROCESS_BYTES + most_decoder_bytes(config.decode) + videos <= quantity(limits["memory"])
    _, volume = mounted(container(), spec()["template"]["spec"], str(config.upload.directory))
    assert jobs * config.upload.max_bytes <= quantity(volume["emptyDir"]["sizeLimit"])
    assert quantity(volume["emptyDir"]["sizeLimit"]) < quantity(limits["ephemeral-storage"])


def test_only_arguments_that_do_not_fit_end_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    fails, ignored = spec()["podFailurePolicy"]["rules"]
    assert fails["action"] == "FailJob"
    command = ["batch", "/nothing", "--out", "/tmp/never", "--shard", "0/8"]
    assert CliRunner().invoke(app, command).exit_code in fails["onExitCodes"]["values"]
    closed = {"endpoint_url": "http://127.0.0.1:1", "key": "key", "secret": "secret"}
    monkeypatch.setenv("TUBELET_FETCH__OPTIONS", json.dumps({"s3": closed}))
    command[1] = "s3://corpus/videos"
    assert CliRunner().invoke(app, command).exit_code not in {0, *fails["onExitCodes"]["values"]}
    assert ignored["onPodConditions"][0]["type"] == "DisruptionTarget"


def test_image_and_policy_are_those_of_the_project() -> None:
    assert container()["image"] == f"tubelet:{project()['version']}"
    selector = only("batch", "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= spec()["template"]["metadata"]["labels"].items()
    (port,) = container()["ports"]
    assert str(port["containerPort"]) == arguments()[arguments().index("--metrics-port") + 1]
    (home,) = re.findall(r"^ENV HOME=(.*)$", containerfile(), re.M)
    _mount, volume = mounted(container(), spec()["template"]["spec"], home)
    assert "emptyDir" in volume
