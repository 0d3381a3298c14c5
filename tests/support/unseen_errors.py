"""Errors of tasks and futures that nobody has seen: asyncio logs each as "exception was never retrieved"."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_unseen_errors() -> Iterator[None]:
    """Assert that no task and no future of the context ends with an error that nobody has seen."""
    loop, found = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: found.append(f"{context['message']}: {context}"))
    try:
        yield
        gc.collect()  # asyncio says it when the task is collected
    finally:
        loop.set_exception_handler(None)
    assert found == []
