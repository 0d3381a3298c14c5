"""Ends the actors on a node that is about to stop, so that they commit what is done.

python -m tubelet.service.batch.ray.end_actors
"""

from collections.abc import Iterable
from contextlib import suppress

import psutil

_COMMIT_S = 60.0


def actor_processes(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those of ``processes`` that are actors of batches, by the titles that Ray gives them."""
    found = []
    for process in processes:
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::BatchActor"):
                found.append(process)
        except psutil.Error:  # it has ended, or is of another user
            continue
    return found


def end_actors(actors: Iterable[psutil.Process]) -> None:
    """Send SIGTERM to actors, and wait until they have ended."""
    ending = list(actors)
    for process in ending:
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            process.terminate()
    psutil.wait_procs(ending, timeout=_COMMIT_S)


if __name__ == "__main__":
    end_actors(actor_processes(psutil.process_iter()))
