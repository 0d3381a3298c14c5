"""The gRPC face: proto <-> values, error -> status. No logic."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import grpc

from service.admission import Caller
from service.chunk import chunk_or
from service.engine.hosted import HostedModel
from service.errors import MessageOutOfOrder, TubeletError
from service.metrics import Metrics
from service.pipeline import Emit, Event, Pipeline
from service.status import to_status
from service.storage import Piece
from service.values import NS_PER_S, Classification, Progress, Segment, VideoFacts
from service.wire import (
    classification_to_proto,
    facts_to_proto,
    options_from_proto,
    progress_to_proto,
    segment_to_proto,
    to_duration,
    uri_from_proto,
)
from tubelet.v1 import model_pb2
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import (
    VideoClassifierServicer,
    add_VideoClassifierServicer_to_server,
)

SERVICE = pb.DESCRIPTOR.services_by_name["VideoClassifier"].full_name
Context = grpc.aio.ServicerContext
Message = pb.ClassifyRequest | pb.ClassifyStreamingRequest | memoryview  # a chunk alone is its bytes
T = TypeVar("T")

# A client whose deadline passes cancels the call, and its cancellation may get here before our own timer.
_DEADLINE_SLACK_S = 0.05
_ROUNDS_TO_HEAR_A_CANCELLATION = 3


@dataclass(slots=True)
class _Call:
    """What the request metric says of a call; the model is known once the options are read."""

    method: str
    model: str = ""


class Servicer(VideoClassifierServicer):
    """Answers the RPCs of tubelet.v1.VideoClassifier with one pipeline."""

    def __init__(self, pipeline: Pipeline, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._metrics = metrics

    async def Classify(
        self, request_iterator: AsyncIterator[Message], context: Context
    ) -> pb.ClassifyResponse:
        async def ignore(_: Event) -> None:
            pass

        async def work(call: _Call) -> pb.ClassifyResponse:
            answer = await self._classify(call, request_iterator, context, ignore)
            return pb.ClassifyResponse(classification=classification_to_proto(answer))

        return await self._answer(_Call("Classify"), context, work)

    async def ClassifyStreaming(self, request_iterator: AsyncIterator[Message], context: Context) -> None:
        async def send(event: Event) -> None:
            await context.write(_event_to_proto(event))

        async def work(call: _Call) -> None:
            answer = await self._classify(call, request_iterator, context, send)
            await context.write(pb.ClassifyStreamingResponse(classification=classification_to_proto(answer)))

        await self._answer(_Call("ClassifyStreaming"), context, work)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        async def work(_: _Call) -> pb.ListModelsResponse:
            return pb.ListModelsResponse(models=[self._model(model) for model in self._pipeline.catalogue])

        return await self._answer(_Call("ListModels"), context, work)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        async def work(call: _Call) -> pb.GetModelResponse:
            model = self._pipeline.catalogue.find(request.name, request.version)
            call.model = model.spec.name
            return pb.GetModelResponse(model=self._model(model))

        return await self._answer(_Call("GetModel"), context, work)

    async def _classify(
        self, call: _Call, messages: AsyncIterator[Message], context: Context, emit: Emit
    ) -> Classification:
        first = await anext(messages, None)
        if first is None or isinstance(first, memoryview) or first.WhichOneof("part") != "options":
            found = "none" if first is None else _part(first) or "an empty one"
            raise MessageOutOfOrder(f"the first message must hold the options; found: {found}")
        options, uri = options_from_proto(first.options), uri_from_proto(first.options)
        call.model = self._pipeline.catalogue.find(options.model, options.version).spec.name
        caller = _caller(context)
        if uri is None:
            return await self._pipeline.classify(_chunks(messages, context), options, emit, caller)
        return await _unless_more_comes(messages, self._pipeline.classify(uri, options, emit, caller))

    async def _answer(self, call: _Call, context: Context, work: Callable[[_Call], Awaitable[T]]) -> T:
        code = grpc.StatusCode.OK
        try:
            return await work(call)
        except TubeletError as error:
            code = error.code
            metric = self._metrics.rejected if error.before_work else self._metrics.failed
            metric.labels(error.reason).inc()
            return await _abort(context, error)
        except asyncio.CancelledError:
            late = _is_out_of_time(context)
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            self._metrics.failed.labels(code.name).inc()
            raise
        finally:
            self._metrics.requests.labels(call.method, call.model, code.name).inc()

    def _model(self, model: HostedModel) -> model_pb2.Model:
        spec = model.spec
        sampling = spec.sampling
        return model_pb2.Model(
            name=spec.name,
            version=spec.version,
            family=spec.family,
            description=spec.description,
            licence=spec.licence,
            labels=spec.labels,
            sampling=model_pb2.Sampling(
                frames_per_unit=sampling.frames_per_unit,
                units_per_window=sampling.units_per_window,
                window=to_duration(round(sampling.window_s * NS_PER_S)),
                stride=to_duration(round(sampling.stride_s * NS_PER_S)),
                min_window=to_duration(round(sampling.min_window_s * NS_PER_S)),
                max_window=to_duration(round(sampling.max_window_s * NS_PER_S)),
            ),
            height=spec.preprocessing.height,
            width=spec.preprocessing.width,
            accuracy=[
                model_pb2.Accuracy(dataset=figure.dataset, top1=figure.top1, note=figure.note)
                for figure in spec.accuracy
            ],
            device=",".join(model.devices),
            dtype=model.precision,
            is_default=self._pipeline.catalogue.is_default(model),
            source=spec.provenance.source if spec.provenance else "",
            revision=spec.provenance.revision if spec.provenance else "",
        )


def add_to(server: grpc.aio.Server, servicer: VideoClassifierServicer) -> None:
    """Have the server answer as the servicer does; chunks of uploads come as memoryviews."""
    uploads = {
        "Classify": grpc.stream_unary_rpc_method_handler(
            servicer.Classify,
            request_deserializer=chunk_or(pb.ClassifyRequest.FromString),
            response_serializer=pb.ClassifyResponse.SerializeToString,
        ),
        "ClassifyStreaming": grpc.stream_stream_rpc_method_handler(
            servicer.ClassifyStreaming,
            request_deserializer=chunk_or(pb.ClassifyStreamingRequest.FromString),
            response_serializer=pb.ClassifyStreamingResponse.SerializeToString,
        ),
    }
    # Of generic handlers the first one counts, of registered ones, which come before them, the last one.
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, uploads),))
    add_VideoClassifierServicer_to_server(servicer, server)
    registry: Any = server  # whose types leave it out
    registry.add_registered_method_handlers(SERVICE, uploads)


async def _chunks(messages: AsyncIterator[Message], context: Context) -> AsyncIterator[Piece]:
    is_empty = True
    async for message in messages:
        if _part(message) != "chunk":
            found = "the options came twice" if _part(message) else "an empty message came"
            raise MessageOutOfOrder(f"{found}; all messages after the first must hold chunks")
        is_empty = False
        yield message if isinstance(message, memoryview) else message.chunk
    # The stream of a call that was cancelled or ran out of time ends as that of a complete one does, and the
    # end of the call is heard a moment later: it must come before any work on half a file.
    for _ in range(_ROUNDS_TO_HEAR_A_CANCELLATION):
        await asyncio.sleep(0)
    if is_empty or _is_out_of_time(context):
        await asyncio.sleep(_DEADLINE_SLACK_S)


def _part(message: Message) -> str | None:
    return "chunk" if isinstance(message, memoryview) else message.WhichOneof("part")


async def _unless_more_comes(messages: AsyncIterator[Message], work: Coroutine[None, None, T]) -> T:
    """The work's result; the end of the messages is not waited for."""
    working, hearing = asyncio.create_task(work), asyncio.ensure_future(anext(messages, None))
    try:
        await asyncio.wait((working, hearing), return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and hearing.result() is not None:
            raise MessageOutOfOrder("the options say where the video is; no message may follow them")
        return await working
    finally:
        for task in (working, hearing):
            task.cancel()
        await asyncio.wait((working, hearing))


def _caller(context: Context) -> Caller:
    """By the name in its certificate, else by its address, on whatever port."""
    names = (context.auth_context() or {}).get("x509_common_name", ())
    name = next((name.decode() for name in names), context.peer().rpartition(":")[0])
    return Caller(name, context.time_remaining())


def _is_out_of_time(context: Context) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining < _DEADLINE_SLACK_S


def _event_to_proto(event: Event) -> pb.ClassifyStreamingResponse:
    match event:
        case VideoFacts():
            return pb.ClassifyStreamingResponse(video=facts_to_proto(event))
        case Progress():
            return pb.ClassifyStreamingResponse(progress=progress_to_proto(event))
        case Segment():
            return pb.ClassifyStreamingResponse(segment=segment_to_proto(event))


async def _abort(context: Context, error: TubeletError) -> NoReturn:
    status = to_status(error)
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError("abort raises")
