"""The addresses of names, found on threads of their own.

A name server may take long to answer. On the threads that all share, uploads would wait for it that are to be
written to disk.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

_AS_NUMBERS = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class Resolver(AbstractResolver):
    """Asks the system for so many names at the same time; the others wait."""

    def __init__(self, max_names: int) -> None:
        self._threads = ThreadPoolExecutor(max_names, "names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """
        Raises:
            OSError: it has no address, or nobody can say.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _look_up, host, port, family)

    async def close(self) -> None:
        """Those that are looked up still are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found: list[ResolveResult] = []
    infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    for of_family, _, protocol, _, address in infos:
        number, _ = socket.getnameinfo(address, _AS_NUMBERS)  # with the interface where that is part of it
        found.append(
            ResolveResult(
                hostname=host,
                host=number,
                port=port,
                family=of_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
        )
    return found
