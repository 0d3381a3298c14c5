"""Turns the vectors of windows and units into the embeddings that the client gets.

N vectors, D numbers in each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

import numpy as np
from torch import Tensor

from tubelet.service.engine.served_model import ServedModel
from tubelet.service.errors import MalformedOption
from tubelet.service.pipeline.window_outputs import Vector
from tubelet.service.pipeline.windows import ClassifiedWindow
from tubelet.service.types.embeddings import EMBEDDING_DTYPES, EmbeddingLevel, Embeddings
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Options

_PART_BYTES = 1 << 20  # of vectors in one event, at most; a client takes messages of 4 MiB by default
_PART_INTERVAL_S = 0.5  # after which fewer vectors are sent, too
_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


def check_embeddings(options: Options, model: ServedModel) -> None:
    """Check that ``model`` can give the vectors that ``options`` ask for.

    Raises:
        MalformedOption: it cannot, or only vectors are asked for, but none.
    """
    if options.embedding_dtype not in EMBEDDING_DTYPES:
        raise MalformedOption(
            f"embedding_dtype is {options.embedding_dtype!r}; it must be {' or '.join(EMBEDDING_DTYPES)}",
            field="embedding_dtype",
            value=options.embedding_dtype,
        )
    if options.embeddings is None:
        if options.only_embeddings:
            raise MalformedOption(
                "only_embeddings leaves nothing to compute without embeddings: ask for those of units, "
                "windows or the video",
                field="only_embeddings",
            )
        return
    shape = model.unit_shape
    if options.embeddings is EmbeddingLevel.UNIT and shape is not None and len(shape) != 1:
        raise MalformedOption(
            f"model {model.spec.name} embeds a unit as {' x '.join(map(str, shape))} numbers, not as one "
            "vector; ask for the embeddings of windows",
            field="embeddings",
            value=options.embeddings.value,
        )


@dataclass(frozen=True, slots=True)
class _Row:
    """A vector with its time range [start_ns, end_ns) and the number of its view."""

    start_ns: int
    end_ns: int
    view: int
    vector: np.ndarray  # (D,) float32


class EmbeddingCollector:
    """Collects the vectors of a video's windows, and yields them as parts of at most 1 MiB."""

    def __init__(self, options: Options, model: ServedModel) -> None:
        assert options.embeddings is not None
        self._level = options.embeddings
        self._options = options
        self._model = model
        self._plan: Plan
        self._rows: list[_Row] = []
        self._yielded_at = monotonic()
        self._sum: np.ndarray | float = 0.0  # of the vectors of all windows, for that of the video
        self._windows = 0

    def use_plan(self, plan: Plan) -> None:
        """Use ``plan`` for the windows after this call."""
        self._plan = plan

    def add(self, window: ClassifiedWindow) -> Iterator[Embeddings]:
        """Add the vectors of the next window; yield a part once there is enough for one."""
        match self._level:
            case EmbeddingLevel.UNIT:
                yield from self._keep(self._unit_rows(window))
            case EmbeddingLevel.WINDOW:
                yield from self._keep(self._window_row(window))
            case EmbeddingLevel.VIDEO:
                self._sum = self._sum + _to_float32(window.vectors[0]).astype(np.float64)
                self._windows += 1
        if self._rows and monotonic() - self._yielded_at >= _PART_INTERVAL_S:
            yield self._part()

    def finish(self) -> Iterator[Embeddings]:
        """Yield the last part, after the last window."""
        if self._level is EmbeddingLevel.VIDEO and self._windows:
            mean = np.asarray(self._sum / self._windows, np.float32)
            grids = self._plan.grids
            self._rows.append(_Row(grids[0].start_ns, grids[-1].end_ns, 0, mean))
        if self._rows:
            yield self._part()

    def _unit_rows(self, window: ClassifiedWindow) -> Iterator[_Row]:
        """Yield a row for each new unit of ``window``."""
        grid, view = self._plan.grids[window.grid], self._view(window)
        for unit, vector in zip(window.new_units, window.vectors, strict=True):
            yield _Row(grid.unit_start_ns(unit), grid.unit_start_ns(unit + 1), view, _to_float32(vector))

    def _window_row(self, window: ClassifiedWindow) -> Iterator[_Row]:
        """Yield the row of ``window``."""
        grid = self._plan.grids[window.grid]
        units, vector = grid.window_units(window.window), _to_float32(window.vectors[0])
        start_ns, end_ns = grid.unit_start_ns(units.start), grid.unit_start_ns(units.stop)
        yield _Row(start_ns, end_ns, self._view(window), vector)

    def _view(self, window: ClassifiedWindow) -> int:
        """Return the number of the view that ``window`` belongs to."""
        return window.grid - self._plan.views(window.grid).start

    def _keep(self, rows: Iterator[_Row]) -> Iterator[Embeddings]:
        """Keep ``rows``, and yield a part whenever one more row would make it too large."""
        size = np.dtype(self._options.embedding_dtype).itemsize
        for row in rows:
            if (len(self._rows) + 1) * row.vector.size * size > _PART_BYTES and self._rows:
                yield self._part()
            self._rows.append(row)

    def _part(self) -> Embeddings:
        """Return the rows that were kept, and forget them."""
        rows, self._rows, self._yielded_at = self._rows, [], monotonic()
        spec = self._model.spec
        return Embeddings(
            level=self._level,
            model=spec.name,
            version=spec.version,
            fingerprint=self._model.fingerprint,
            vectors=self._formatted(np.stack([row.vector for row in rows])),
            start_ns=np.array([row.start_ns for row in rows], np.int64),
            end_ns=np.array([row.end_ns for row in rows], np.int64),
            view=np.array([row.view for row in rows], np.int32),
        )

    def _formatted(self, vectors: np.ndarray) -> np.ndarray:
        """Normalise vectors (N, D) float32 and convert their numbers, as the options ask; 0 stays 0."""
        if self._options.normalise_embeddings:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(lengths == 0, 1, lengths)
        if self._options.embedding_dtype == "float16":
            return vectors.clip(-_LARGEST_FLOAT16, _LARGEST_FLOAT16).astype(np.float16)
        return vectors


def _to_float32(vector: Vector) -> np.ndarray:
    """Convert a vector (D,) of any precision to float32."""
    return vector.float().numpy() if isinstance(vector, Tensor) else vector
