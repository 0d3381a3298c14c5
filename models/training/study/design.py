"""The design of the study: the models, the numbers of training windows, the seeds, the order of the runs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tubelet.models.families.channel_stack import ChannelStackDims
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.r2plus1d import R2Plus1DDims
from tubelet.models.families.registry import Dims
from tubelet.models.spec import Preprocessing

FRAMES = 16  # of a window
WINDOW_S = 2.0  # its length
SIDE = 32  # pixels
PREPROCESSING = Preprocessing(SIDE, SIDE, "crop", mean=(0.45, 0.45, 0.45), std=(0.25, 0.25, 0.25))
HEADS = (1, 2, 5, 10)
_WIDTH, _MLP = 80, 160
_USUAL_HEADS = 5
_DEEP = 4  # frames in a tubelet of the factorised transformer


@dataclass(frozen=True, slots=True)
class StudiedModel:
    """A model of the study: its title, the frames in a unit, its sizes, and whose learning rate it takes."""

    title: str
    frames_per_unit: int
    dims: Dims
    rate_of: str


def _factorised(heads: int) -> FactorisedDims:
    """Return the sizes of the factorised transformer; ``heads`` do not change its number of parameters."""
    return FactorisedDims((_DEEP, 8, 8), FRAMES // _DEEP, _WIDTH, 3, 1, heads, _MLP)


def _with_heads(heads: int) -> str:
    """Return the name of the factorised transformer with ``heads`` heads."""
    return "factorised" if heads == _USUAL_HEADS else f"factorised-{heads}-heads"


def plural_heads(heads: int) -> str:
    """Return the number of heads in words, such as ``2 heads``."""
    return f"{heads} head" if heads == 1 else f"{heads} heads"


ARCHITECTURES = ("factorised", "channel_stack", "r2plus1d")
"""The names of the models that are compared by family; a learning rate is searched for each."""
BY_HEADS = {heads: _with_heads(heads) for heads in HEADS}
"""The names of the models that are compared by heads."""
MODELS: dict[str, StudiedModel] = {
    "channel_stack": StudiedModel(
        "channel stack (transformer)",
        FRAMES,
        ChannelStackDims(FRAMES, 4, _WIDTH, 4, _USUAL_HEADS, _MLP),
        "channel_stack",
    ),
    "r2plus1d": StudiedModel(
        "R(2+1)D (CNN)", FRAMES, R2Plus1DDims(FRAMES, 8, (8, 24, 96), (1, 1, 1)), "r2plus1d"
    ),
} | {
    name: StudiedModel(
        "factorised transformer"
        if heads == _USUAL_HEADS
        else f"factorised transformer, {plural_heads(heads)}",
        _DEEP,
        _factorised(heads),
        "factorised",
    )
    for heads, name in BY_HEADS.items()
}


@dataclass(frozen=True, slots=True)
class Run:
    """One training: a model on ``windows`` windows, with a seed.

    With a ``rate``, it is part of the search of learning rates. Otherwise the rate is what the search found.
    """

    model: str
    windows: int
    seed: int
    rate: float | None = None

    @property
    def name(self) -> str:
        """The name of the run's files."""
        rate = "" if self.rate is None else f"-rate-{self.rate:g}"
        return f"{self.model}-{self.windows}-seed-{self.seed}{rate}"


@dataclass(frozen=True, slots=True)
class Design:
    """The numbers of the study; every run sees ``steps`` batches of ``batch_size`` windows.

    ``sizes`` are numbers of training windows, those for models by heads are ``head_sizes``. Sizes up to
    ``repeated_to`` are trained with all ``seeds``, larger ones with the first. A search of learning rates is
    as long as a share of a run, on ``search_windows``, and judged on validation windows.
    """

    sizes: tuple[int, ...] = (300, 1_000, 3_000, 10_000, 30_000)
    head_sizes: tuple[int, ...] = (300, 3_000, 30_000)
    repeated_to: int = 3_000
    seeds: int = 3
    steps: int = 8_000
    batch_size: int = 32
    checkpoint_steps: int = 500  # between two checkpoints of a run
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3, 4e-3)
    search_windows: int = 3_000
    search_share: float = 0.25
    validation_windows: int = 1_000
    test_windows: int = 2_000

    @property
    def training_windows(self) -> int:
        """The windows to render: enough for the largest size, and for other windows with each seed."""
        repeated = [size for size in self.sizes + self.head_sizes if size <= self.repeated_to]
        most = self.offset(self.seeds - 1) + max(repeated) if repeated else 0
        return max(*self.sizes, *self.head_sizes, self.search_windows, most)

    def offset(self, seed: int) -> int:
        """Return the first training window of a seed: sets of up to ``repeated_to`` do not overlap."""
        return seed * self.repeated_to

    def steps_of(self, run: Run) -> int:
        """Return the optimiser steps of a run."""
        return self.steps if run.rate is None else max(1, round(self.search_share * self.steps))

    def search_runs(self) -> list[Run]:
        """Return the runs of the search of learning rates."""
        return [Run(model, self.search_windows, 0, rate) for rate in self.rates for model in ARCHITECTURES]

    def study_runs(self) -> list[Run]:
        """Return the runs of the study, in their order: all with the first seed, then further seeds.

        Within a seed, models by family come before models by heads, so that a first picture exists early.
        """
        runs = []
        for seed in range(self.seeds):
            runs += _runs(ARCHITECTURES, self._sizes(self.sizes, seed), seed)
            others = [name for name in BY_HEADS.values() if name not in ARCHITECTURES]
            runs += _runs(others, self._sizes(self.head_sizes, seed), seed)
            missing = [size for size in self._sizes(self.head_sizes, seed) if size not in self.sizes]
            runs += _runs([BY_HEADS[_USUAL_HEADS]], missing, seed)
        return runs

    def _sizes(self, sizes: Iterable[int], seed: int) -> list[int]:
        """Return the sizes that are trained with a seed."""
        return [size for size in sizes if seed == 0 or size <= self.repeated_to]


def _runs(models: Iterable[str], sizes: Iterable[int], seed: int) -> Iterator[Run]:
    """Yield a run for each size and model."""
    models = tuple(models)
    return (Run(model, size, seed) for size in sizes for model in models)


def with_sizes(design: Design, sizes: tuple[int, ...]) -> Design:
    """Return a design of some ``sizes`` only."""
    chosen = tuple(sorted(set(sizes)))
    return replace(
        design, sizes=chosen, head_sizes=tuple(size for size in chosen if size in design.head_sizes)
    )
