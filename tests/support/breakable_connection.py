"""A TCP proxy in front of a real server, whose connections a test can break."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Wire:
    """Forwards connections to ``port``; the first ``breaks`` of them break after 4 KiB."""

    port: int
    breaks: int = 0
    connections: int = 0
    target: str = ""
    _open: list[asyncio.StreamWriter] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def cut(self) -> None:
        """Break all connections and accept no further ones."""
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        is_broken = self.connections <= self.breaks
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._open += [writer, up_writer]
        await asyncio.gather(_copy(reader, up_writer, is_broken), _copy(up_reader, writer, False))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_broken: bool) -> None:
    count = 0
    try:
        while data := await reader.read(1 << 16):
            count += len(data)
            if is_broken and count > 4096:
                break
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.transport.abort()


@asynccontextmanager
async def wire_to(port: int, breaks: int = 0) -> AsyncIterator[Wire]:
    """Forward connections to ``port`` until the context ends."""
    wire = Wire(port, breaks)
    wire._server = await asyncio.start_server(wire._forward, "127.0.0.1", 0)
    wire.target = f"127.0.0.1:{wire._server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        await wire.cut()
