"""The RPCs of the service: converts messages to values and errors to statuses, and calls the pipeline."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import grpc

from tubelet.models.spec import ModelSpec
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.errors import MalformedOption, MessageOutOfOrder, ModelNotAllowed, UnknownModel
from tubelet.service.ingest.ingest import Video
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.pipeline import Pipeline
from tubelet.service.pipeline.request import Request
from tubelet.service.rpc.access import check_model, check_uri, guard_model, limit_priority
from tubelet.service.rpc.admission import Admission, Caller
from tubelet.service.rpc.answer_stream import write
from tubelet.service.rpc.calls import Call, Calls
from tubelet.service.rpc.copy_errors import copy_errors
from tubelet.service.rpc.embeddings import EmbeddingsOfAnswer
from tubelet.service.rpc.request_stream import (
    Context,
    Message,
    parse_unless_chunk,
    parser,
    read_chunks,
    read_options,
    read_request,
)
from tubelet.service.types.embeddings import Embeddings
from tubelet.service.types.explanation import EmitExplained, ExplainEvent
from tubelet.service.types.result import (
    Activation,
    Classification,
    Emit,
    Event,
    Progress,
    Segment,
)
from tubelet.service.types.video import VideoMetadata, to_ns
from tubelet.service.wire.answer import (
    activation_to_proto,
    classification_to_proto,
    metadata_to_proto,
    progress_to_proto,
    segment_to_proto,
)
from tubelet.service.wire.embeddings import embeddings_to_proto
from tubelet.service.wire.explanation import explain_event_to_proto, explain_options_from_proto
from tubelet.service.wire.options import model_from_proto, options_from_proto, uri_from_proto
from tubelet.service.wire.times import to_duration
from tubelet.v1 import classification_pb2, model_pb2
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.classification_pb2 import ClassifyOptions
from tubelet.v1.explanation_pb2 import ExplainOptions
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierServicer

SERVICE = pb.DESCRIPTOR.services_by_name["VideoClassifier"].full_name
T = TypeVar("T")
Work = Callable[[Video, Request], Coroutine[None, None, Classification]]
"""Answers for a video."""
Choose = Callable[[Any], tuple[ClassifyOptions, Work]]
"""Turns the options of an RPC into those of the classification, and the work."""

_FIELDS_OF_GET_MODEL = {"model": "name", "version": "version"}  # by those of the options
_SEGMENTS_AT_ONCE = 100  # segments converted without a yield; they take about 2 ms


class Servicer(VideoClassifierServicer):
    """Answers the RPCs of tubelet.v1.VideoClassifier; all calls share one pipeline."""

    def __init__(
        self,
        pipeline: Pipeline,
        admission: Admission,
        metrics: Metrics,
        calls: Calls,
        idle_timeout_s: float,
    ) -> None:
        self._pipeline = pipeline
        self._admission = admission
        self._metrics = metrics
        self._calls = calls
        self._idle_timeout_s = idle_timeout_s  # limit for a byte of an upload, and to read an event

    async def Classify(
        self, request_iterator: AsyncIterator[Message], context: Context
    ) -> pb.ClassifyResponse:
        async with self._calls.track("Classify", context) as call:
            embeddings = EmbeddingsOfAnswer()
            answer = await self._answer(call, request_iterator, self._classifying(call, embeddings.emit))
            response = pb.ClassifyResponse()
            await fill_message(replace(answer, embeddings=embeddings.joined()), response.classification)
            return response

    async def ClassifyStreaming(self, request_iterator: AsyncIterator[Message], context: Context) -> None:
        async def send(event: Event) -> None:
            await write(context, _event_to_proto(event), self._idle_timeout_s)

        async with self._calls.track("ClassifyStreaming", context) as call:
            answer = await self._answer(call, request_iterator, self._classifying(call, send))
            response = pb.ClassifyStreamingResponse()
            await fill_message(answer, response.classification)
            await context.write(response)  # the ticket is free by now

    async def Explain(self, request_iterator: AsyncIterator[Message], context: Context) -> None:
        async def send(event: ExplainEvent) -> None:
            await write(context, explain_event_to_proto(event), self._idle_timeout_s)

        async with self._calls.track("Explain", context) as call:
            answer = await self._answer(call, request_iterator, self._explaining(call, send))
            response = pb.ExplainResponse()
            await fill_message(answer, response.classification)
            await context.write(response)  # the ticket is free by now

    async def ListModels(  # pyright: ignore[reportIncompatibleMethodOverride]: see ``add_to``
        self, messages: AsyncIterator[pb.ListModelsRequest], context: Context
    ) -> pb.ListModelsResponse:
        async with self._calls.track("ListModels", context) as call:
            await read_request(messages, context, self._idle_timeout_s)
            registry, may_use = self._pipeline.registry, call.identity.may_use
            return pb.ListModelsResponse(
                models=[self._model(each) for each in registry if may_use(each.spec.name, each.spec.version)],
                not_loaded=[
                    _model_message(spec) for spec in registry.not_loaded if may_use(spec.name, spec.version)
                ],
            )

    async def GetModel(  # pyright: ignore[reportIncompatibleMethodOverride]: see ``add_to``
        self, messages: AsyncIterator[pb.GetModelRequest], context: Context
    ) -> pb.GetModelResponse:
        async with self._calls.track("GetModel", context) as call:
            asked = await read_request(messages, context, self._idle_timeout_s)
            try:
                wanted = model_from_proto(asked.name, asked.version)
                with guard_model(call.identity, wanted.name):
                    model = self._pipeline.registry.find(wanted.name, wanted.version)
                    check_model(call.identity, model.spec)
            except (MalformedOption, UnknownModel, ModelNotAllowed) as error:
                field = _FIELDS_OF_GET_MODEL[error.field]
                raise type(error)(error.message, field=field, **error.metadata) from None
            call.spec = model.spec
            return pb.GetModelResponse(model=self._model(model))

    def _classifying(self, call: Call, emit: Emit) -> Choose:
        """Return what chooses to classify, with the options of ``Classify``."""

        def choose(asked: ClassifyOptions) -> tuple[ClassifyOptions, Work]:
            """Return the options, and the work itself."""
            return asked, lambda video, request: self._pipeline.classify(
                video, request, call.note_metadata(emit)
            )

        return choose

    def _explaining(self, call: Call, emit: EmitExplained) -> Choose:
        """Return what chooses to explain, with the options of ``Explain``."""

        def choose(asked: ExplainOptions) -> tuple[ClassifyOptions, Work]:
            """Return the options of the classification, and the work itself."""
            what = explain_options_from_proto(asked)

            async def explain(video: Video, request: Request) -> Classification:
                """Explain, if not too many videos are being explained."""
                with self._admission.admit_explanation(), copy_errors(request.model.spec):
                    return await self._pipeline.explain(video, request, what, call.note_metadata(emit))

            return asked.classification, explain

        return choose

    async def _answer(self, call: Call, messages: AsyncIterator[Message], choose: Choose) -> Classification:
        """Admit a call, read its options, do what they choose; the ticket learns how long that took."""
        with (
            self._admission.admit(_caller(call)) as ticket,
            self._metrics.videos_in_flight.track_inprogress(),
        ):
            asked, work = choose(await read_options(messages, call.context, self._idle_timeout_s))
            options, uri = limit_priority(call.identity, options_from_proto(asked)), uri_from_proto(asked)
            with guard_model(call.identity, options.model):
                request = self._pipeline.request(options, ticket.deadline, meter=ticket.meter)
                check_model(call.identity, request.model.spec)
            if uri is not None:
                check_uri(call.identity, uri)
            call.spec, call.timings = request.model.spec, request.timings
            try:
                if uri is None:
                    chunks = read_chunks(messages, call.context, self._idle_timeout_s)
                    answer = await work(ticket.track_chunks(chunks), request)
                else:
                    ticket.received()
                    answer = await _refuse_further_messages(messages, work(uri, request))
            except asyncio.CancelledError:
                ticket.cancelled(request.timings.server_s)
                raise
            ticket.answered(request.timings.server_s)
            call.answer = answer
            return replace(answer, request_id=call.request_id)

    def _model(self, model: ServedModel) -> model_pb2.Model:
        described = _model_message(model.spec)
        described.device = ",".join(model.devices)
        described.dtype = model.precision
        described.fingerprint = model.fingerprint
        described.is_default = self._pipeline.registry.is_default(model)
        return described


def add_to(server: grpc.aio.Server, servicer: VideoClassifierServicer) -> None:
    """Register the methods of ``servicer`` with ``server``.

    Chunks of uploads arrive as memoryviews. Methods of a single message are registered as if there were a
    stream of them: so the handler reads it, once it knows who calls.
    """
    handlers = {
        "Classify": grpc.stream_unary_rpc_method_handler(
            servicer.Classify,
            request_deserializer=parse_unless_chunk(parser(pb.ClassifyRequest)),
            response_serializer=pb.ClassifyResponse.SerializeToString,
        ),
        "ClassifyStreaming": grpc.stream_stream_rpc_method_handler(
            servicer.ClassifyStreaming,
            request_deserializer=parse_unless_chunk(parser(pb.ClassifyStreamingRequest)),
            response_serializer=pb.ClassifyStreamingResponse.SerializeToString,
        ),
        "Explain": grpc.stream_stream_rpc_method_handler(
            servicer.Explain,
            request_deserializer=parse_unless_chunk(parser(pb.ExplainRequest)),
            response_serializer=pb.ExplainResponse.SerializeToString,
        ),
        "ListModels": grpc.stream_unary_rpc_method_handler(
            servicer.ListModels,
            request_deserializer=parser(pb.ListModelsRequest),
            response_serializer=pb.ListModelsResponse.SerializeToString,
        ),
        "GetModel": grpc.stream_unary_rpc_method_handler(
            servicer.GetModel,
            request_deserializer=parser(pb.GetModelRequest),
            response_serializer=pb.GetModelResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    registry: Any = server  # its types lack this method
    registry.add_registered_method_handlers(SERVICE, handlers)


async def _refuse_further_messages(messages: AsyncIterator[Message], work: Coroutine[None, None, T]) -> T:
    """Await ``work``; raise MessageOutOfOrder if a message arrives before it is done."""
    working, hearing = asyncio.create_task(work), asyncio.ensure_future(anext(messages, None))
    try:
        await asyncio.wait((working, hearing), return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and hearing.result() is not None:
            raise MessageOutOfOrder("the options have a URI; no message may follow them")
        return await working
    finally:
        for task in (working, hearing):
            task.cancel()
        await asyncio.wait((working, hearing))


def _caller(call: Call) -> Caller:
    """Identify the client by its identity, or else by its address without the port."""
    name = call.identity.name or call.context.peer().rpartition(":")[0]
    return Caller(name, call.context.time_remaining(), call.identity)


async def fill_message(answer: Classification, message: classification_pb2.Classification) -> None:
    """Convert ``answer`` into ``message``, and let other calls run: a day has 86,400 segments."""
    message.CopyFrom(classification_to_proto(replace(answer, segments=())))
    for first in range(0, len(answer.segments), _SEGMENTS_AT_ONCE):
        part = answer.segments[first : first + _SEGMENTS_AT_ONCE]
        message.segments.extend(segment_to_proto(segment) for segment in part)
        await asyncio.sleep(0)


def _model_message(spec: ModelSpec) -> model_pb2.Model:
    """Convert the spec of a model, loaded or not."""
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
            window=to_duration(to_ns(sampling.window_s)),
            stride=to_duration(to_ns(sampling.stride_s)),
            min_window=to_duration(to_ns(sampling.min_window_s)),
            max_window=to_duration(to_ns(sampling.max_window_s)),
        ),
        height=spec.preprocessing.height,
        width=spec.preprocessing.width,
        accuracy=[
            model_pb2.Accuracy(dataset=figure.dataset, top1=figure.top1, note=figure.note)
            for figure in spec.accuracy
        ],
        source=spec.provenance.source if spec.provenance else "",
        revision=spec.provenance.revision if spec.provenance else "",
        activation=activation_to_proto(Activation(spec.activation)),
    )


def _event_to_proto(event: Event) -> pb.ClassifyStreamingResponse:
    match event:
        case VideoMetadata():
            return pb.ClassifyStreamingResponse(video=metadata_to_proto(event))
        case Progress():
            return pb.ClassifyStreamingResponse(progress=progress_to_proto(event))
        case Segment():
            return pb.ClassifyStreamingResponse(segment=segment_to_proto(event))
        case Embeddings():
            return pb.ClassifyStreamingResponse(embeddings=embeddings_to_proto(event))
