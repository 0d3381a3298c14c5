"""Open connections of the gRPC ports: how many there are, and a warning before nobody else gets in.

gRPC closes what comes above ``server.max_connections`` without a word, and tells nobody how many there are.
So they are counted as the system has them, among the sockets of this process.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv6Address, ip_address

import psutil

from tubelet.service.metrics import Metrics
from tubelet.service.server.listening import with_port

_INTERVAL_S = 10.0  # between two counts for the warning; one takes 10 ms, and 0.1 s where there are thousands
_NEAR, _CALM = 0.9, 0.7  # parts of the limit: from the first on a warning is due, below the second a new one

logger = logging.getLogger(__name__)


@asynccontextmanager
async def watch_connections(
    addresses: Sequence[str], ports: Sequence[int], limit: int, metrics: Metrics
) -> AsyncIterator[None]:
    """Show the open connections in the metrics, and warn near their ``limit``, while the context is open."""
    count = partial(count_connections, addresses, ports)
    metrics.watch_connections(count, limit)
    warning = asyncio.create_task(_warn(count, NearLimit(limit)))
    try:
        yield
    finally:
        warning.cancel()


def count_connections(addresses: Sequence[str], ports: Sequence[int]) -> dict[str, int]:
    """Return the number of open connections at each address and port, by both as URLs have them."""
    here = [
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.Process().net_connections("tcp")
        if connection.raddr
    ]
    return {
        with_port(address, port): sum(_is_at(address, ip) for ip, found in here if found == port)
        for address in addresses
        for port in ports
    }


class NearLimit:
    """Tells where the connections come near their ``limit``: once, until they have become fewer again."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._near: set[str] = set()

    def reached(self, counts: Mapping[str, int]) -> list[str]:
        """Return the addresses with connections near the limit that were not so before."""
        found = [each for each in counts if each not in self._near and counts[each] >= _NEAR * self.limit]
        self._near |= set(found)
        self._near -= {each for each in counts if counts[each] < _CALM * self.limit}
        return found


async def _warn(count: partial[dict[str, int]], near: NearLimit) -> None:
    """Count again and again, until the task is cancelled, and warn of connections near their limit."""
    while True:
        await asyncio.sleep(_INTERVAL_S)
        counts = await asyncio.to_thread(count)
        for address in near.reached(counts):
            logger.warning(
                "%d connections are open at %s; above server.max_connections, %d, each new one is closed at "
                "once",
                counts[address],
                address,
                near.limit,
            )


def _is_at(address: str, ip: str) -> bool:
    """Tell whether a connection to ``ip`` is one to ``address``, which may be all addresses."""
    listening, found = (ip_address(each.partition("%")[0]) for each in (address, ip))
    # gRPC's sockets are of IPv6, whose addresses of IPv4 are ::ffff:127.0.0.1 and the like.
    plain = found.ipv4_mapped if isinstance(found, IPv6Address) and found.ipv4_mapped else found
    return listening.is_unspecified or listening == plain
