"""Classification of the videos of a Ray dataset, whose rows get labels and segments as further columns."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pyarrow
from ray.data import Dataset

from tubelet.service.batch.classifier import BatchClassifier, open_batch_classifier
from tubelet.service.batch.plan import BatchPlan, make_plan
from tubelet.service.batch.ray.actor import check_model
from tubelet.service.batch.ray.cluster import cluster_nodes
from tubelet.service.batch.ray.share import share_of_nodes
from tubelet.service.batch.rows import VideoRows
from tubelet.service.batch.source.items import Item, file_item, item_id, uri_item
from tubelet.service.config.config import Config, load_config
from tubelet.service.metrics import Metrics
from tubelet.service.types.request import Options
from tubelet.service.types.uri import is_uri

_JOBS = 16  # videos that an actor classifies at the same time
_LABELS = {"labels": pyarrow.list_(pyarrow.string()), "scores": pyarrow.list_(pyarrow.float32())}
_SEGMENT = {"start_s": pyarrow.float64(), "end_s": pyarrow.float64(), **_LABELS}
_COLUMNS = {
    **_LABELS,
    "segments": pyarrow.list_(pyarrow.struct(list(_SEGMENT.items()))),
    "duration_s": pyarrow.float64(),
    "code": pyarrow.string(),
    "reason": pyarrow.string(),
    "message": pyarrow.string(),
}


def classify_dataset(
    dataset: Dataset,
    column: str = "uri",
    model: str = "",
    *,
    actors: int | tuple[int, int] | None = None,
    actor_cpus: int | None = None,
    **options: Any,
) -> Dataset:
    """Classify the video of each row of a Ray dataset; return the dataset with further columns.

    ``column`` has paths and URIs that ``fetch.allow`` covers, or the bytes of files; a column of bytes is
    left out of the result. ``model`` and ``options`` are those of ``tubelet.classify``. The new columns are
    ``labels``, ``scores``, ``segments`` (a list of objects with ``start_s``, ``end_s``, ``labels`` and
    ``scores``), ``duration_s``, ``code``, ``reason`` and ``message``. ``code`` is OK, or else the gRPC code
    of the error of this video; the others go on.

    Nothing is done until the result is used. Then up to ``actors``, or between two numbers, each load the
    model once; the default is as many as the cluster has room for. ``actor_cpus`` are the decode workers and
    threads of each: the CPUs of the smallest node by default, of which one is left for reading.

    Raises:
        ValueError: the dataset has no such column.
        tubelet.models.errors.UnknownModel, BrokenModel: the model cannot be used.
    """
    names = dataset.columns(fetch_if_missing=False)  # None: not known before it is read
    if names is not None and column not in names:
        raise ValueError(f"the dataset has no column {column!r}; it has {', '.join(names)}")
    config = load_config()
    plan = make_plan(Options(model=model, **options), config, embeddings=False)
    share, room = share_of_nodes(cluster_nodes(), actor_cpus)
    settings = {"plan": plan, "settings": share.settings(config), "column": column}
    return dataset.map_batches(
        DatasetClassifier,
        fn_constructor_kwargs=settings,
        batch_size=_JOBS,
        batch_format="pyarrow",
        concurrency=actors or (1, room),
        num_cpus=share.cpus if actor_cpus else share.cpus - 1,
        num_gpus=share.gpus,
    )


class DatasetClassifier:
    """A pipeline that adds columns to batches of rows; several batches are in progress at a time."""

    def __init__(self, plan: BatchPlan, settings: dict[str, Any], column: str) -> None:
        self._plan = plan
        self._settings = settings
        self._column = column
        self._opening: asyncio.Task[BatchClassifier] | None = None
        self._jobs = asyncio.Semaphore(_JOBS)

    async def __call__(self, batch: pyarrow.Table) -> AsyncIterator[pyarrow.Table]:
        """Yield the batch with the columns of its answers."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        classifier = await self._opening
        values = batch.column(self._column).to_pylist()
        rows = await asyncio.gather(*(self._classify(classifier, value) for value in values))
        if any(isinstance(value, bytes) for value in values):
            batch = batch.drop_columns([self._column])
        for name, kind in _COLUMNS.items():
            batch = batch.append_column(name, pyarrow.array([_value(each, name) for each in rows], kind))
        yield batch

    async def _open(self) -> BatchClassifier:
        """Start the pipeline, which ends with this process.

        Raises:
            ActorFailed: the model is not that of the plan.
        """
        config = Config(**self._settings)
        check_model(self._plan, config)
        self._context = open_batch_classifier(config, self._plan, _JOBS, Metrics())
        return await self._context.__aenter__()

    async def _classify(self, classifier: BatchClassifier, value: Any) -> VideoRows:
        """Classify the video of a row: a path, a URI, or bytes."""
        async with self._jobs:
            if isinstance(value, bytes):
                return await classifier.classify(Item(item_id("", ""), "", ""), value)
            return await classifier.classify(_item(value))


def _item(value: Any) -> Item:
    """Return the item that a path or a URI names."""
    if not isinstance(value, str) or not value:
        said = f"a row has {value!r} where a URI, a path or bytes should be"
        return Item(item_id("", ""), "", problem=said, reason="BROKEN_ROW")
    if not is_uri(value):
        return file_item(value)
    return uri_item(value)


def _value(rows: VideoRows, name: str) -> Any:
    """Return the value of a column for one video."""
    if name != "segments":
        return rows.video.get(name)
    return [{key: row[key] for key in _SEGMENT} for row in rows.segments]
