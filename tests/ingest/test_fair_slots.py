"""The slots of fetched videos: how many at a time, whose turn it is, and what a cancelled wait leaves."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tubelet.service.ingest.fetcher import FairSlots


class Holders:
    """Tasks that want a slot, and those that have one, in the order in which they got it."""

    def __init__(self, slots: int) -> None:
        self.slots = FairSlots(slots)
        self.names: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def start(self, name: str, identity: str = "") -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, identity))
        await settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settle()

    async def _hold(self, name: str, identity: str) -> None:
        async with self.slots.hold(identity):
            self.names.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    """Let all tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_than_the_slots_are_held_and_then_in_order_of_arrival() -> None:
    holders = Holders(2)
    for name in "abcd":
        await holders.start(name)
    assert holders.names == ["a", "b"]
    await holders.end("b")
    await holders.end("a")
    assert holders.names == ["a", "b", "c", "d"]
    for name in "cd":
        await holders.end(name)


async def test_identities_take_turns() -> None:
    holders = Holders(1)
    for number in range(4):
        await holders.start(f"many {number}", "many")
    await holders.start("one", "one")
    for name in ("many 0", "one", "many 1", "many 2", "many 3"):
        await holders.end(name)
    assert holders.names[:2] == ["many 0", "one"]
    assert len(holders.names) == 5


@pytest.mark.parametrize("is_given", [True, False])
async def test_a_cancelled_wait_keeps_no_slot(is_given: bool) -> None:
    """Neither while it waits, nor where the slot has been given to it in that moment."""
    holders = Holders(1)
    for name in "abc":
        await holders.start(name)
    if is_given:
        holders._ends["a"].set()
        await asyncio.sleep(0)
    holders.tasks["b"].cancel()
    await settle()
    await holders.end("a")
    assert holders.names[-1] == "c"
    await holders.end("c")
    async with AsyncExitStack() as stack, asyncio.timeout(10):
        await stack.enter_async_context(holders.slots.hold(""))
