"""The manifests: they render, are valid, and grant what the configuration in them needs."""

import os
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.container_image import containerfile, project, user
from tests.support.manifests import (
    KUSTOMIZE,
    container,
    most_decoder_bytes,
    mounted,
    needs_kubectl,
    only,
    pod,
    render,
)
from tubelet.service.config.config import GIB
from tubelet.v1 import video_classifier_pb2

WHOLE = ("base", "overlays/fetch", "overlays/gpu", "overlays/store", "overlays/tls")
SERVER_BYTES = 1 * GIB  # what the server itself may take; it takes half of that idle, with small models
KUBERNETES = "1.30"  # the oldest one that runs it: the first to know lifecycle.preStop.sleep by default
_PORTS = {"https": 443, "http": 80}
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def egress(folder: str) -> list[dict[str, Any]]:
    return only(folder, "NetworkPolicy")["spec"]["egress"]


def quantity(text: str) -> int:
    """A Kubernetes quantity in bytes."""
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return int(number) * _UNITS[unit]


@needs_kubectl
@pytest.mark.parametrize("folder", WHOLE)
def test_manifests_are_valid(folder: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    resources = render(folder)
    assert {resource["kind"] for resource in resources} == {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        *({"PersistentVolumeClaim"} if folder == "overlays/store" else ()),
    }
    for resource in resources:
        for version in (KUBERNETES, validator.latest_version()):
            validator.validate(resource, version, strict=True)


@needs_kubectl
def test_components_combine_with_the_gpu_overlay(tmp_path: Path) -> None:
    def entry(folder: str) -> str:
        return os.path.relpath(KUSTOMIZE / folder, tmp_path.resolve())

    together = {
        "resources": [entry("overlays/gpu")],
        "components": [entry("components/store"), entry("components/fetch"), entry("components/tls")],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(together))
    folder = str(tmp_path.resolve())  # an absolute path replaces the one it is joined to
    variables = {variable["name"] for variable in container(folder)["env"]}
    assert {
        "TUBELET_ENGINE__DEVICE",
        "TUBELET_MODELS__STORE",
        "TUBELET_FETCH__ALLOW",
        "TUBELET_SERVER__TLS__KEY",
    } <= variables
    assert {mount["mountPath"] for mount in container(folder)["volumeMounts"]} == {
        "/etc/tubelet",
        "/models",
        "/tls",
        "/tmp",
    }
    assert any("to" in rule for rule in egress(folder))
    assert container(folder)["startupProbe"] == {
        "httpGet": {"scheme": "HTTPS", "port": "metrics", "path": "/readyz"},
        "periodSeconds": 2,
        "failureThreshold": 300,
    }


@needs_kubectl
def test_gpu_overlay_changes_device_and_decoders_only(config_of) -> None:
    assert config_of("base").engine.device == "cpu"
    gpu = config_of("overlays/gpu")
    assert gpu.engine.device == "cuda"
    assert gpu.decode.workers == 4
    assert gpu.upload == config_of("base").upload


@needs_kubectl
def test_gpu_overlay_mounts_the_libraries_of_hardware_decoding() -> None:
    """NVIDIA's container toolkit mounts those of computing alone, unless a container asks for more."""
    variables = {each["name"]: each["value"] for each in container("overlays/gpu")["env"]}
    assert set(variables["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility", "video"}


@needs_kubectl
def test_fetch_overlay_opens_the_ports_of_its_prefixes(config_of) -> None:
    allowed = config_of("overlays/fetch").fetch.allow
    assert allowed
    assert {urlsplit(prefix).port or _PORTS[urlsplit(prefix).scheme] for prefix in allowed} == {
        port["port"] for rule in egress("overlays/fetch") if "to" in rule for port in rule["ports"]
    }


@needs_kubectl
def test_network_policies_keep_private_addresses_closed() -> None:
    """Addresses of the cluster, of the nodes and of their metadata."""
    open_blocks = [peer["ipBlock"] for rule in egress("overlays/fetch") for peer in rule.get("to", ())]
    for private in (
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.31.0.1",
        "192.168.1.1",
        "fd00:ec2::254",
    ):
        address = ip_address(private)
        assert not any(
            address in ip_network(block["cidr"])
            and not any(address in ip_network(each) for each in block["except"])
            for block in open_blocks
        )
    assert any(ip_address("93.184.216.34") in ip_network(block["cidr"]) for block in open_blocks)


@needs_kubectl
@pytest.mark.parametrize("folder", WHOLE)
def test_network_policy_allows_calls_scrapes_and_name_look_ups(folder: str, config_of) -> None:
    spec = only(folder, "NetworkPolicy")["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    (let_in,) = spec["ingress"]
    assert {port["port"] for port in let_in["ports"]} == {port["name"] for port in container(folder)["ports"]}
    assert [rule["ports"] for rule in egress(folder) if "to" not in rule] == [
        [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    ]
    assert any("to" in rule for rule in egress(folder)) is bool(config_of(folder).fetch.allow)


@needs_kubectl
def test_replicas_mount_the_store_read_only(config_of) -> None:
    folder = "overlays/store"
    store, claim = (
        str(config_of(folder).models.store),
        only(folder, "PersistentVolumeClaim")["metadata"]["name"],
    )
    mount, volume = mounted(container(folder), pod(folder), store)
    assert mount["readOnly"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim, "readOnly": True}


@needs_kubectl
def test_replicas_have_longer_to_load_the_models_of_a_store() -> None:
    probe, longer = container("base")["startupProbe"], container("overlays/store")["startupProbe"]
    assert longer == probe | {"failureThreshold": 300}
    assert longer["failureThreshold"] * longer["periodSeconds"] == 600


@needs_kubectl
def test_importer_pod_writes_to_the_store_of_the_replicas(config_of) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    importer = yaml.safe_load((KUSTOMIZE / "components" / "store" / "importer.yaml").read_text())
    for version in (KUBERNETES, validator.latest_version()):
        validator.validate(importer, version, strict=True)
    (writer,) = importer["spec"]["containers"]
    reader = container("overlays/store")
    store = str(config_of("overlays/store").models.store)
    mount, volume = mounted(writer, importer["spec"], store)
    assert "readOnly" not in mount
    assert writer["env"] == [variable for variable in reader["env"] if variable["value"] == store]
    assert (
        volume["persistentVolumeClaim"]["claimName"]
        == (mounted(reader, pod("overlays/store"), store)[1]["persistentVolumeClaim"]["claimName"])
    )
    assert writer["image"] == reader["image"]
    assert writer["securityContext"] == reader["securityContext"]
    assert importer["spec"]["securityContext"]["fsGroup"] == user()[1]
    assert "labels" not in importer["metadata"], "the Service would send calls to it"


@needs_kubectl
@pytest.mark.parametrize("folder", WHOLE)
def test_memory_limit_covers_the_configuration(folder: str, config_of) -> None:
    config = config_of(folder)
    videos = config.server.max_videos_in_flight * config.decode.shared_memory_bytes
    limit = quantity(container(folder)["resources"]["limits"]["memory"])
    assert SERVER_BYTES + most_decoder_bytes(config.decode) + videos <= limit


@needs_kubectl
@pytest.mark.parametrize("folder", WHOLE)
def test_upload_folder_fits_all_uploads(folder: str, config_of) -> None:
    config = config_of(folder)
    _, volume = mounted(container(folder), pod(folder), str(config.upload.directory))
    worst = config.server.max_videos_in_flight * config.upload.max_bytes
    granted = quantity(volume["emptyDir"]["sizeLimit"])
    assert worst <= granted
    for kind in ("requests", "limits"):
        assert granted < quantity(container(folder)["resources"][kind]["ephemeral-storage"]), "and the log"


@needs_kubectl
@pytest.mark.parametrize("folder", WHOLE)
def test_home_of_the_image_is_writable(folder: str) -> None:
    (home,) = re.findall(r"^ENV HOME=(.*)$", containerfile(), re.M)
    mount, volume = mounted(container(folder), pod(folder), home)
    assert "emptyDir" in volume
    assert "readOnly" not in mount


@needs_kubectl
@pytest.mark.parametrize("folder", WHOLE)
def test_grace_period_covers_the_drain(folder: str, config_of) -> None:
    before_s = container(folder)["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_s = before_s + config_of(folder).server.drain_s
    assert pod(folder)["terminationGracePeriodSeconds"] > needed_s


@needs_kubectl
def test_cpu_request_covers_decoders_and_engine_threads(config_of) -> None:
    config = config_of("base")
    assert config.engine.threads is not None
    busy = config.decode.workers * config.decode.threads + config.engine.threads
    assert int(container("base")["resources"]["requests"]["cpu"]) == busy


@needs_kubectl
@pytest.mark.parametrize("folder", WHOLE)
def test_manifests_and_configuration_agree_on_ports(folder: str, config_of) -> None:
    server = config_of(folder).server
    listens = {"grpc": server.port, "metrics": server.metrics_port}
    opens = {port["name"]: port["containerPort"] for port in container(folder)["ports"]}
    ports = only(folder, "Service")["spec"]["ports"]
    probed = {
        _probed_port(container(folder)[f"{each}Probe"]) for each in ("startup", "readiness", "liveness")
    }
    exposed = re.findall(r"^EXPOSE (.*)$", containerfile(), re.M)
    assert opens == listens
    assert {port["name"]: port["port"] for port in ports} == listens
    assert all(port["targetPort"] in opens for port in ports)
    # Kubernetes probes gRPC without TLS only.
    assert probed == {server.port if server.tls.certificate is None else "metrics"}
    assert exposed == [" ".join(str(port) for port in listens.values())]


def _probed_port(probe: dict[str, Any]) -> int | str:
    return probe["grpc"]["port"] if "grpc" in probe else probe["httpGet"]["port"]


@needs_kubectl
def test_selectors_find_the_replicas() -> None:
    labels = only("base", "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    (monitor,) = render("overlays/monitoring")
    for selector in (
        only("base", "Deployment")["spec"]["selector"]["matchLabels"],
        only("base", "Service")["spec"]["selector"],
        only("base", "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only("base", "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in pod("base")["topologySpreadConstraints"]),
        monitor["spec"]["selector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= labels
    named = {port["name"] for port in container("base")["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= named


@needs_kubectl
def test_readiness_probe_names_the_grpc_service() -> None:
    service = video_classifier_pb2.DESCRIPTOR.services_by_name["VideoClassifier"].full_name
    assert container("base")["readinessProbe"]["grpc"]["service"] == service


@needs_kubectl
def test_image_tag_is_the_project_version() -> None:
    assert container("base")["image"] == f"tubelet:{project()['version']}"
