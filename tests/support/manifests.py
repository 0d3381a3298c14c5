"""The manifests as Kubernetes gets them: rendered by kubectl, and their parts."""

import shutil
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from tests.support.container_image import ROOT
from tubelet.service.config.config import DecodeConfig

KUSTOMIZE = ROOT / "deploy" / "kustomize"

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@cache
def render(folder: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUSTOMIZE / folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def only(folder: str, kind: str) -> dict[str, Any]:
    (found,) = (resource for resource in render(folder) if resource["kind"] == kind)
    return found


def pod(folder: str) -> dict[str, Any]:
    return only(folder, "Deployment")["spec"]["template"]["spec"]


def container(folder: str) -> dict[str, Any]:
    (found,) = pod(folder)["containers"]
    return found


def mounted(
    container: dict[str, Any], pod: dict[str, Any], path: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mount at ``path`` and its volume."""
    (mount,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == path)
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    return mount, volume


def most_decoder_bytes(config: DecodeConfig) -> int:
    """The memory of all decoders that may be alive: some stand in for those of long videos, or that wait."""
    return (config.workers + config.max_long_videos + config.max_uploading_videos) * config.memory_bytes
