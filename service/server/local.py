"""The pipeline in this process, without gRPC; a model is loaded when a call first names it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

from tubelet.models.errors import UnknownModel as NotInStore
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.service.config.config import Config
from tubelet.service.errors import MalformedOption, UnknownModel
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.request import Request
from tubelet.service.server.app import Stages, open_stages
from tubelet.service.server.model_manager import check_folder
from tubelet.service.types.explanation import EmitExplained, ExplainOptions
from tubelet.service.types.meter import UNMETERED, Meter
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Emit
from tubelet.service.types.uri import Uri, parse_uri


class LocalPipeline:
    """A pipeline that starts with its first model and ends with its context.

    Calls are answered by exact versions: what a name means does not depend on which models are loaded.
    """

    def __init__(self, config: Config, metrics: Metrics | None = None) -> None:
        self._config = config
        self._metrics = metrics  # None: nobody reads them
        self._context = AsyncExitStack()
        self._stages: Stages | None = None
        self._versions: dict[ModelRef, ModelRef] = {}  # of each reference that was asked for, the exact one
        self._loading = asyncio.Lock()

    async def __aenter__(self) -> "LocalPipeline":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._context.aclose()

    async def classify(
        self, video: AsyncIterator[bytes] | Uri, options: Options, emit: Emit
    ) -> Classification:
        """Classify the chunks of a file or the video at a URI; ``emit`` gets the events before the answer."""
        return await self.answer(video, await self.request(options), emit)

    async def request(self, options: Options, meter: Meter = UNMETERED) -> Request:
        """Make a request with ``options``, and load its model; ``meter`` counts what it uses.

        Raises: see ``load``.
        """
        model = await self.load(options.model, options.version)
        assert self._stages is not None
        exact = replace(options, model=model.name, version=model.version)
        return self._stages.pipeline.request(exact, meter=meter)

    async def answer(self, video: AsyncIterator[bytes] | Uri, request: Request, emit: Emit) -> Classification:
        """Classify the chunks of a file or the video at a URI as ``request`` asks, whose timings fill."""
        assert self._stages is not None
        return await self._stages.pipeline.classify(video, request, emit)

    async def explain(
        self, video: AsyncIterator[bytes] | Uri, options: Options, asked: ExplainOptions, emit: EmitExplained
    ) -> Classification:
        """Explain a video; ``emit`` gets the maps and other events before the answer."""
        request = await self.request(options)
        assert self._stages is not None
        return await self._stages.pipeline.explain(video, request, asked, emit)

    async def load(self, model: str, version: str = "") -> ModelRef:
        """Load a model unless it is loaded, and return its name and version; an empty name is the default.

        Raises:
            UnknownModel, MalformedOption: this installation has no such model, or the name is malformed.
            BrokenModel, MissingExtra, ...: it cannot be loaded; the others stay.
            MissingModels: ``models.store`` is not there.
        """
        try:
            asked = ModelRef.parse(model, version)
        except ValueError as error:
            raise MalformedOption(str(error), field="model") from None
        wanted = asked.or_default(self._config.models.default_ref)
        async with self._loading:
            if wanted not in self._versions:
                exact = self._find(wanted)
                if exact not in self._versions.values():
                    await self._load(exact)
                self._versions[wanted] = exact
            return self._versions[wanted]

    def _find(self, wanted: ModelRef) -> ModelRef:
        """Return the exact version that ``wanted`` means; without a version, the newest."""
        check_folder(self._config.models)
        try:
            spec = ModelStore(ZOO, self._config.models.store).find(wanted.name, wanted.version).spec
        except NotInStore as error:
            raise UnknownModel(str(error), field="model", value=str(wanted)) from None
        return ModelRef(spec.name, spec.version)

    async def _load(self, exact: ModelRef) -> None:
        """Load a model version: with the first one the pipeline starts, later ones join it."""
        names = tuple(str(each) for each in (exact, *self._versions.values()))
        models = self._config.models.model_copy(update={"default": names[0], "load": names})
        if self._stages is None:
            config = self._config.model_copy(update={"models": models})
            self._stages = await self._context.enter_async_context(
                open_stages(config, self._metrics or Metrics())
            )
        else:
            await self._stages.model_manager.reload(models)


def parse_uri_option(text: str) -> Uri:
    """Parse the URI of a request.

    Raises:
        MalformedOption: it is none that a server may fetch.
    """
    try:
        return parse_uri(text)
    except ValueError as error:
        raise MalformedOption(str(error), field="uri") from None
