"""Measures the memory of a server under a limit, idle and under load, and whether it survives.

    python -m tests.bench.memory ../shared/videos/real [--limit-mib 1024] [--concurrency 32]

Starts ``tubelet serve`` with the configuration in ``deploy/``, in a control group of its own with the memory
limit ``--limit-mib``, and sends it every video below the folder, ``--concurrency`` at a time. Prints the
memory charged to the group: all of it, and the part that the kernel cannot reclaim, anonymous and shared
memory, which the limit must cover. The rest is files, mostly libraries. They are read again where memory is
short, which takes time. Needs root, and a memory controller (version 1 or 2) below /sys/fs/cgroup in which
this process may create groups. Files that other programs have in memory are charged to those: run no other
Python meanwhile.
"""

import os
import signal
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tests.bench.serve import NotReady, started
from tubelet.service.client import Client
from tubelet.service.config.config import EngineConfig

CONFIG = Path(__file__).parents[2] / "deploy" / "kustomize" / "base" / "tubelet.toml"
ROOT = Path("/sys/fs/cgroup")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Group:
    """A control group: its folder, and the names of its files in this version of the memory controller."""

    folder: Path
    limit: str
    usage: str
    unreclaimable: tuple[str, ...]  # in memory.stat
    kills: str
    kills_key: str

    def usage_bytes(self) -> int:
        return int((self.folder / self.usage).read_text())

    def unreclaimable_bytes(self) -> int:
        stat = _table(self.folder / "memory.stat")
        return sum(stat[name] for name in self.unreclaimable)

    def oom_kills(self) -> int:
        return _table(self.folder / self.kills)[self.kills_key]


def _table(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, path.read_text().splitlines())}


def own_group() -> Group:
    """Return the group of this process."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            folder = ROOT / "memory" / path.lstrip("/")
            unreclaimable = ("total_rss", "total_shmem")
            kills = ("memory.oom_control", "oom_kill")
            return Group(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", unreclaimable, *kills)
        if not controllers and (ROOT / "cgroup.controllers").exists():
            folder = ROOT / path.lstrip("/")
            kills = ("memory.events", "oom_kill")
            return Group(folder, "memory.max", "memory.current", ("anon", "shmem"), *kills)
    raise typer.BadParameter(f"there is no memory controller below {ROOT}")


@contextmanager
def limited(limit_mib: int) -> Iterator[Group]:
    """Create a group with this limit below that of this process, and remove it at the end of the context."""
    own = own_group()
    folder = own.folder / f"tubelet-{os.getpid()}"
    folder.mkdir()
    names = (own.limit, own.usage, own.unreclaimable, own.kills, own.kills_key)
    try:
        (folder / own.limit).write_text(str(limit_mib * MIB))
        yield Group(folder, *names)
    finally:
        folder.rmdir()


def settings() -> dict[str, str]:
    """Return the configuration of the deployment, as variables of the environment, without its ports."""
    return {
        f"TUBELET_{section}__{key}".upper(): str(value)
        for section, table in tomllib.loads(CONFIG.read_text()).items()
        for key, value in table.items()
        if "port" not in key
    } | {"TUBELET_ENGINE__CACHE_BYTES": str(EngineConfig().cache_bytes)}


def forget_libraries() -> None:
    """Let the kernel drop the cached files of Python packages, so that they are charged to the group."""
    for folder in (Path(entry) for entry in sys.path if entry.endswith("site-packages")):
        for path in folder.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


class Peak:
    """Records the most memory charged to a group while the context lasts."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.usage_bytes = self.unreclaimable_bytes = 0

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.usage_bytes = max(self.usage_bytes, self._group.usage_bytes())
            self.unreclaimable_bytes = max(self.unreclaimable_bytes, self._group.unreclaimable_bytes())


def load(target: str, videos: list[Path], concurrency: int) -> list[str]:
    """Classify all ``videos``, ``concurrency`` at a time; return the failures."""

    def classify(video: Path) -> str | None:
        try:
            client.classify(video)
        except Exception as error:
            return f"{video.name}: {error}"
        return None

    with Client(target) as client, ThreadPoolExecutor(concurrency) as threads:
        return [failure for failure in threads.map(classify, videos) if failure]


@contextmanager
def _told(group: Group) -> Iterator[None]:
    """Exit with an error message if the server does not start."""
    try:
        yield
    except NotReady as error:
        print(f"{error}; {group.oom_kills()} processes killed")
        raise typer.Exit(1) from None


def main(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    limit_mib: Annotated[int, typer.Option(min=1)] = 1024,
    concurrency: Annotated[int, typer.Option(min=1)] = 32,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the group is removed on the way out
    videos = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    forget_libraries()
    print(f"limit {limit_mib} MiB")
    with limited(limit_mib) as group:
        enter = ("sh", "-c", f'echo $$ > {group.folder}/cgroup.procs && exec "$@"', "sh")
        with _told(group), started(*enter, **settings()) as server:
            time.sleep(5.0)
            usage, part = group.usage_bytes() / MIB, group.unreclaimable_bytes() / MIB
            print(f"ready after {server.ready_s:.1f} s")
            print(f"idle: {usage:.0f} MiB, of which {part:.0f} cannot be taken back", flush=True)
            with Peak(group) as peak:
                start_s = time.monotonic()
                failures = load(f"127.0.0.1:{server.port}", videos * rounds, concurrency)
                took_s = time.monotonic() - start_s
            kills = group.oom_kills()
    print(f"{len(videos) * rounds} videos, {concurrency} at a time, in {took_s:.1f} s")
    most, part = peak.usage_bytes / MIB, peak.unreclaimable_bytes / MIB
    print(f"meanwhile: at most {most:.0f} MiB; at most {part:.0f} could not be taken back")
    print(f"{kills} processes killed, {len(failures)} videos failed", *failures[:3], sep="\n  ")
    raise typer.Exit(bool(kills or failures))


if __name__ == "__main__":
    typer.run(main)
