"""A simulated clock, and CPU cores whose time is shared among tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

ROUNDING_S = 1e-12  # a task with less work left than this has ended


class Clock:
    """A queue of events in simulated time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, time_s: float, do: Callable[[], None]) -> None:
        """Call ``do`` at ``time_s``, or now if that has passed."""
        heappush(self._events, (max(time_s, self.now), next(self._numbers), do))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Call ``do`` in ``seconds`` from now."""
        self.at(self.now + seconds, do)

    def run(self, until_s: float = float("inf")) -> None:
        """Call all events up to ``until_s``, in the order of time."""
        while self._events and self._events[0][0] <= until_s:
            self.now, _, do = heappop(self._events)
            do()


@dataclass(eq=False, slots=True)
class _Task:
    """Work that ``threads`` do; each gets the share ``rate`` of a core."""

    left_s: float
    threads: int
    weight: float
    then: Callable[[], None]
    rate: float = 0.0


class Cores:
    """CPU cores, shared by all running threads in proportion to their weights."""

    def __init__(self, clock: Clock, cores: int, *, are_enough: bool) -> None:
        self._clock = clock
        self._cores = cores
        self._are_enough = are_enough  # each thread always has a core of its own
        self._tasks: list[_Task] = []
        self._settled_s = 0.0
        self._plan = 0

    def run(self, seconds: float, then: Callable[[], None], threads: int = 1, weight: float = 1.0) -> None:
        """Start work that takes ``seconds`` if each of its ``threads`` has a core; then call ``then``."""
        if self._are_enough:
            self._clock.after(seconds, then)
            return
        self._settle()
        self._tasks.append(_Task(seconds, threads, weight, then))
        self._replan()

    def _settle(self) -> None:
        """Subtract from each task the work done since the last call."""
        elapsed_s = self._clock.now - self._settled_s
        for task in self._tasks:
            task.left_s -= elapsed_s * task.rate
        self._settled_s = self._clock.now

    def _replan(self) -> None:
        """Share the cores anew, and schedule the end of the next task that ends."""
        self._plan += 1
        if not self._tasks:
            return
        wanted = sum(task.threads * task.weight for task in self._tasks)
        for task in self._tasks:
            task.rate = min(1.0, self._cores * task.weight / wanted)
        plan = self._plan
        self._clock.after(
            max(0.0, min(task.left_s / task.rate for task in self._tasks)), lambda: self._end(plan)
        )

    def _end(self, plan: int) -> None:
        """End the tasks whose work is done, unless the cores were shared anew after ``plan``."""
        if plan != self._plan:
            return
        self._settle()
        ended = [task for task in self._tasks if task.left_s <= ROUNDING_S]
        self._tasks = [task for task in self._tasks if task.left_s > ROUNDING_S]
        self._replan()
        for task in ended:
            task.then()
