"""The manifests of TLS, of identities and of scrapes by https: they fit each other and the configuration."""

import os
from copy import deepcopy
from pathlib import Path

import yaml

from tests.support.container_image import ROOT, user
from tests.support.manifests import KUSTOMIZE, container, mounted, needs_kubectl, only, pod, render


@needs_kubectl
def test_tls_overlay_reads_the_secret_and_probes_by_https(config_of) -> None:
    folder = "overlays/tls"
    server = config_of(folder).server
    assert (server.tls.certificate.name, server.tls.key.name) == ("tls.crt", "tls.key"), "of any TLS Secret"
    assert server.tls.certificate.parent == server.tls.key.parent
    mount, volume = mounted(container(folder), pod(folder), str(server.tls.key.parent))
    assert mount["readOnly"]
    assert "subPath" not in mount, "nodes do not update single files"
    certificate = yaml.safe_load((KUSTOMIZE / "components" / "tls" / "certificate.yaml").read_text())
    assert volume["secret"]["secretName"] == certificate["spec"]["secretName"]
    assert only(folder, "Service")["metadata"]["name"] in certificate["spec"]["dnsNames"]
    probes = {each: container(folder)[f"{each}Probe"] for each in ("startup", "readiness", "liveness")}
    assert {
        each: (probe["httpGet"]["scheme"], probe["httpGet"]["path"]) for each, probe in probes.items()
    } == {
        "startup": ("HTTPS", "/readyz"),
        "readiness": ("HTTPS", "/readyz"),
        "liveness": ("HTTPS", "/healthz"),
    }
    for each, probe in probes.items():  # as often and as patiently as without TLS
        plain = container("base")[f"{each}Probe"]
        assert {key: value for key, value in probe.items() if key != "httpGet"} == {
            key: value for key, value in plain.items() if key != "grpc"
        }
    (grpc, _) = only(folder, "Service")["spec"]["ports"]
    assert (grpc["name"], grpc["targetPort"], grpc["appProtocol"]) == ("grpc", "grpc", "https")


@needs_kubectl
def test_identities_component_reads_a_secret_that_only_the_server_can_read(config_of, tmp_path: Path) -> None:
    parts = [KUSTOMIZE / "overlays" / "tls", KUSTOMIZE / "components" / "identities"]
    tls, identities = (os.path.relpath(part, tmp_path.resolve()) for part in parts)
    together = {"resources": [tls], "components": [identities]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(together))
    folder = str(tmp_path.resolve())
    server = config_of(folder).server
    assert server.tls.certificate is not None
    mount, volume = mounted(container(folder), pod(folder), str(server.access.identities.parent))
    assert mount["readOnly"]
    assert "subPath" not in mount, "nodes do not update single files"
    secret = volume["secret"]
    assert secret["defaultMode"] & 0o007 == 0, "the server would warn of it"
    assert secret["defaultMode"] & 0o040
    assert pod(folder)["securityContext"]["fsGroup"] == user()[1]
    page = (ROOT / "deploy" / "README.md").read_text()
    file = server.access.identities.name
    assert f"create secret generic {secret['secretName']} --from-file={file}" in page


@needs_kubectl
def test_tls_monitoring_checks_the_certificate_of_the_overlay() -> None:
    (plain,), (monitor,) = render("overlays/monitoring"), deepcopy(render("overlays/monitoring-tls"))
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    certificate = yaml.safe_load((KUSTOMIZE / "components" / "tls" / "certificate.yaml").read_text())["spec"]
    assert endpoint.pop("scheme") == "https"
    tls = endpoint.pop("tlsConfig")
    assert tls["serverName"] in certificate["dnsNames"]
    assert tls["ca"]["secret"] == {"name": certificate["secretName"], "key": "ca.crt"}
    assert monitor == plain


@needs_kubectl
def test_token_monitoring_sends_the_secret_that_the_page_makes() -> None:
    (plain,), (monitor,) = render("overlays/monitoring-tls"), deepcopy(render("overlays/monitoring-token"))
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https", "a token crosses no network in the clear"
    authorization = endpoint.pop("authorization")
    assert authorization.pop("type") == "Bearer"
    secret = authorization.pop("credentials")
    assert not authorization
    assert monitor == plain
    page = (ROOT / "deploy" / "README.md").read_text()
    assert f"create secret generic {secret['name']} --from-file={secret['key']}=/dev/stdin" in page
