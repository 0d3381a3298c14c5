"""The Ray cluster, which a driver joins."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import ray
from ray._private import worker as ray_worker

from tubelet.service.batch.ray.errors import ClusterUnreachable

_CONNECT_S = 10.0


@asynccontextmanager
async def joined(address: str) -> AsyncIterator[None]:
    """Join the cluster at ``address``, HOST:PORT, until the context ends.

    Without an address it is that of RAY_ADDRESS, or one that runs on this machine, or a new one.

    Raises:
        ClusterUnreachable: there is none.
    """
    await _check_reachable(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        await asyncio.to_thread(
            ray.init,
            address or None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        where = address or "this machine"
        raise ClusterUnreachable(f"cannot join the Ray cluster at {where}: {said}") from error
    finally:
        signal.signal(signal.SIGTERM, before)  # which Ray replaces
    # Ray prints what it knows of dead workers on standard output, which is for --json.
    ray_worker._worker_logs_enabled = False
    try:
        yield
    finally:
        await asyncio.to_thread(ray.shutdown)


async def _check_reachable(address: str) -> None:
    """Raise ClusterUnreachable if nothing listens at HOST:PORT, which Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), _CONNECT_S)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or f"no answer in {_CONNECT_S:g} s"
        raise ClusterUnreachable(f"cannot join the Ray cluster at {address}: {said}") from error
    writer.close()


def cluster_nodes() -> list[Mapping[str, float]]:
    """Return the resources of each node of the cluster, by their names."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
