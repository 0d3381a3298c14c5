"""The RayJob of a batch: it renders, its pods are valid and get what they need, and its command is one."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.container_image import project
from tests.support.manifests import most_decoder_bytes, mounted, needs_kubectl, only, render
from tubelet.service.batch.ray.share import ActorShare
from tubelet.service.cli.app import app
from tubelet.service.config.config import GIB, Config, load_config

pytestmark = needs_kubectl
_PROCESS_BYTES = 3 * GIB // 2  # of the actor itself, and of Ray beside it
KUBERNETES = "1.30"


def spec() -> dict[str, Any]:
    return only("ray", "RayJob")["spec"]


def groups() -> list[dict[str, Any]]:
    """The head and the workers."""
    cluster = spec()["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def arguments() -> list[str]:
    return shlex.split(spec()["entrypoint"])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The configuration of an actor with the CPUs of its pod."""
    pod = groups()[1]["template"]["spec"]
    path = arguments()[arguments().index("--config") + 1]
    mount, volume = mounted(pod["containers"][0], pod, str(Path(path).parent))
    config_map = only("ray", "ConfigMap")
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    file = tmp_path / "batch.toml"
    file.write_text(config_map["data"][path.removeprefix(mount["mountPath"] + "/")])
    cpus = int(pod["containers"][0]["resources"]["limits"]["cpu"])
    return Config(**ActorShare(cpus).settings(load_config(file)))


def test_what_kubernetes_knows_of_the_manifests_is_valid() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    assert {resource["kind"] for resource in render("ray")} == {"ConfigMap", "NetworkPolicy", "RayJob"}
    pods = [{"apiVersion": "v1", "kind": "Pod", **group["template"]} for group in groups()]
    known = [resource for resource in render("ray") if resource["kind"] != "RayJob"]
    for resource in (*known, *pods):
        for version in (KUBERNETES, validator.latest_version()):
            validator.validate(resource, version, strict=True)


def test_the_entrypoint_is_a_command(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command gets as far as Ray, which is not installed here."""
    monkeypatch.setitem(sys.modules, "ray", None)
    name, *command = arguments()
    replaced = {"s3://corpus/videos": str(tmp_path), "/etc/tubelet/batch.toml": str(tmp_path / "batch.toml")}
    result = CliRunner().invoke(app, [*(replaced.get(each, each) for each in command), "--json"])
    assert name == "tubelet"
    assert json.loads(result.stdout)["error"]["reason"] == "MISSING_EXTRA"


def test_memory_and_storage_cover_the_configuration(config: Config) -> None:
    pod = groups()[1]["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    jobs = int(arguments()[arguments().index("--jobs") + 1])
    videos = jobs * config.decode.shared_memory_bytes
    assert _PROCESS_BYTES + most_decoder_bytes(config.decode) + videos <= gibibytes(limits["memory"])
    _, volume = mounted(pod["containers"][0], pod, str(config.upload.directory))
    assert jobs * config.upload.max_bytes < gibibytes(volume["emptyDir"]["sizeLimit"])
    assert gibibytes(volume["emptyDir"]["sizeLimit"]) < gibibytes(limits["ephemeral-storage"])


def gibibytes(text: str) -> int:
    """A Kubernetes quantity in GiB, as bytes."""
    (number,) = re.fullmatch(r"(\d+)Gi", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return int(number) * GIB


def test_pods_have_the_image_of_the_project_and_the_labels_of_the_policy() -> None:
    selector = only("ray", "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for group in groups():
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == f"tubelet:{project()['version']}"
        assert selector.items() <= group["template"]["metadata"]["labels"].items()


def test_probes_need_no_program_of_the_image() -> None:
    """KubeRay adds the probes that a pod lacks; those run wget."""
    health = [(8265, "/api/gcs_healthz"), (52365, "/api/local_raylet_healthz")]
    for group, (port, path) in zip(groups(), health, strict=True):
        (container,) = group["template"]["spec"]["containers"]
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            assert probe["httpGet"] == {"port": port, "path": path}


def test_each_pod_of_workers_has_an_actor_and_ends_it_before_it_stops() -> None:
    head, workers = groups()
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert int(arguments()[arguments().index("--actors") + 1]) == workers["maxReplicas"]
    pod = workers["template"]["spec"]
    command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["python", "-m", "tubelet.service.batch.ray.end_actors"]
    assert pod["terminationGracePeriodSeconds"] > 60
