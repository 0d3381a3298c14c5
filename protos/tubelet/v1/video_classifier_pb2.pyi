from tubelet.v1 import classification_pb2 as _classification_pb2
from tubelet.v1 import explanation_pb2 as _explanation_pb2
from tubelet.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClassifyRequest(_message.Message):
    __slots__ = ("options", "chunk")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    options: _classification_pb2.ClassifyOptions
    chunk: bytes
    def __init__(self, options: _Optional[_Union[_classification_pb2.ClassifyOptions, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("classification",)
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    classification: _classification_pb2.Classification
    def __init__(self, classification: _Optional[_Union[_classification_pb2.Classification, _Mapping]] = ...) -> None: ...

class ClassifyStreamingRequest(_message.Message):
    __slots__ = ("options", "chunk")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    options: _classification_pb2.ClassifyOptions
    chunk: bytes
    def __init__(self, options: _Optional[_Union[_classification_pb2.ClassifyOptions, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ClassifyStreamingResponse(_message.Message):
    __slots__ = ("video", "progress", "segment", "classification", "embeddings")
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    video: _classification_pb2.VideoMetadata
    progress: _classification_pb2.Progress
    segment: _classification_pb2.Segment
    classification: _classification_pb2.Classification
    embeddings: _classification_pb2.Embeddings
    def __init__(self, video: _Optional[_Union[_classification_pb2.VideoMetadata, _Mapping]] = ..., progress: _Optional[_Union[_classification_pb2.Progress, _Mapping]] = ..., segment: _Optional[_Union[_classification_pb2.Segment, _Mapping]] = ..., classification: _Optional[_Union[_classification_pb2.Classification, _Mapping]] = ..., embeddings: _Optional[_Union[_classification_pb2.Embeddings, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("options", "chunk")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    options: _explanation_pb2.ExplainOptions
    chunk: bytes
    def __init__(self, options: _Optional[_Union[_explanation_pb2.ExplainOptions, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("video", "progress", "map", "classification")
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    video: _classification_pb2.VideoMetadata
    progress: _classification_pb2.Progress
    map: _explanation_pb2.SegmentMap
    classification: _classification_pb2.Classification
    def __init__(self, video: _Optional[_Union[_classification_pb2.VideoMetadata, _Mapping]] = ..., progress: _Optional[_Union[_classification_pb2.Progress, _Mapping]] = ..., map: _Optional[_Union[_explanation_pb2.SegmentMap, _Mapping]] = ..., classification: _Optional[_Union[_classification_pb2.Classification, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "not_loaded")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NOT_LOADED_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.Model]
    not_loaded: _containers.RepeatedCompositeFieldContainer[_model_pb2.Model]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.Model, _Mapping]]] = ..., not_loaded: _Optional[_Iterable[_Union[_model_pb2.Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ...) -> None: ...
