"""A real Ray cluster of several nodes on this machine, in processes of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest

from tubelet.service.batch.ray.end_actors import actor_processes

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
"""Of all processes that use the cluster: nothing is reported, and no file with a token is written."""

_STORE_BYTES = 100_000_000

_HOLD = f"""
import sys
from ray.cluster_utils import Cluster
of_each = {{"object_store_memory": {_STORE_BYTES}}}
head = of_each | {{"num_cpus": 0, "include_dashboard": False}}
cluster = Cluster(initialize_head=True, head_node_args=head)
for cpus in sys.argv[1:]:
    cluster.add_node(num_cpus=int(cpus), **of_each)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def skip_without_ray() -> None:
    """Skip the test if Ray cannot be imported."""
    found = subprocess.run([sys.executable, "-c", "import ray"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"Ray cannot be imported: {found.stderr.splitlines()[-1]}")


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A cluster: its address, and the process whose descendants it consists of."""

    address: str
    holder: psutil.Process

    def actors(self) -> list[psutil.Process]:
        """Return the processes of the actors of batches."""
        return actor_processes(self.holder.children(recursive=True))


@contextmanager
def ray_cluster(*cpus: int) -> Iterator[RayCluster]:
    """Start a cluster with a node of so many CPUs each, beside a head without any."""
    command = [sys.executable, "-c", _HOLD, *map(str, cpus)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            yield RayCluster(holder.stdout.readline().strip(), psutil.Process(holder.pid))
        finally:
            holder.stdin.close()
