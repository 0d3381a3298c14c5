import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from tubelet.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]

class EmbeddingLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMBEDDING_LEVEL_UNSPECIFIED: _ClassVar[EmbeddingLevel]
    EMBEDDING_LEVEL_UNIT: _ClassVar[EmbeddingLevel]
    EMBEDDING_LEVEL_WINDOW: _ClassVar[EmbeddingLevel]
    EMBEDDING_LEVEL_VIDEO: _ClassVar[EmbeddingLevel]

class EmbeddingDtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMBEDDING_DTYPE_UNSPECIFIED: _ClassVar[EmbeddingDtype]
    EMBEDDING_DTYPE_FLOAT32: _ClassVar[EmbeddingDtype]
    EMBEDDING_DTYPE_FLOAT16: _ClassVar[EmbeddingDtype]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LOW: Priority
PRIORITY_NORMAL: Priority
PRIORITY_HIGH: Priority
EMBEDDING_LEVEL_UNSPECIFIED: EmbeddingLevel
EMBEDDING_LEVEL_UNIT: EmbeddingLevel
EMBEDDING_LEVEL_WINDOW: EmbeddingLevel
EMBEDDING_LEVEL_VIDEO: EmbeddingLevel
EMBEDDING_DTYPE_UNSPECIFIED: EmbeddingDtype
EMBEDDING_DTYPE_FLOAT32: EmbeddingDtype
EMBEDDING_DTYPE_FLOAT16: EmbeddingDtype

class ClassifyOptions(_message.Message):
    __slots__ = ("model", "version", "top_k", "score_threshold", "whole_video", "sliding", "views", "ranges", "fast", "uri", "priority", "thumbnails", "embeddings", "embedding_dtype", "normalise_embeddings", "only_embeddings")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    WHOLE_VIDEO_FIELD_NUMBER: _ClassVar[int]
    SLIDING_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    FAST_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    THUMBNAILS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DTYPE_FIELD_NUMBER: _ClassVar[int]
    NORMALISE_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    ONLY_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    top_k: int
    score_threshold: float
    whole_video: WholeVideo
    sliding: Sliding
    views: Views
    ranges: _containers.RepeatedCompositeFieldContainer[TimeRange]
    fast: bool
    uri: str
    priority: Priority
    thumbnails: int
    embeddings: EmbeddingLevel
    embedding_dtype: EmbeddingDtype
    normalise_embeddings: bool
    only_embeddings: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., top_k: _Optional[int] = ..., score_threshold: _Optional[float] = ..., whole_video: _Optional[_Union[WholeVideo, _Mapping]] = ..., sliding: _Optional[_Union[Sliding, _Mapping]] = ..., views: _Optional[_Union[Views, _Mapping]] = ..., ranges: _Optional[_Iterable[_Union[TimeRange, _Mapping]]] = ..., fast: bool = ..., uri: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ..., thumbnails: _Optional[int] = ..., embeddings: _Optional[_Union[EmbeddingLevel, str]] = ..., embedding_dtype: _Optional[_Union[EmbeddingDtype, str]] = ..., normalise_embeddings: bool = ..., only_embeddings: bool = ...) -> None: ...

class WholeVideo(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Sliding(_message.Message):
    __slots__ = ("window", "stride")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    window: _duration_pb2.Duration
    stride: _duration_pb2.Duration
    def __init__(self, window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stride: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Views(_message.Message):
    __slots__ = ("clips", "crops")
    CLIPS_FIELD_NUMBER: _ClassVar[int]
    CROPS_FIELD_NUMBER: _ClassVar[int]
    clips: int
    crops: int
    def __init__(self, clips: _Optional[int] = ..., crops: _Optional[int] = ...) -> None: ...

class TimeRange(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: _duration_pb2.Duration
    end: _duration_pb2.Duration
    def __init__(self, start: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("name", "score")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    name: str
    score: float
    def __init__(self, name: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("range", "labels", "activation")
    RANGE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    range: TimeRange
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    activation: _model_pb2.Activation
    def __init__(self, range: _Optional[_Union[TimeRange, _Mapping]] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., activation: _Optional[_Union[_model_pb2.Activation, str]] = ...) -> None: ...

class VideoMetadata(_message.Message):
    __slots__ = ("container", "codec", "width", "height", "fps", "frames", "duration", "size_bytes", "pixel_format", "shown_as_stored")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIXEL_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SHOWN_AS_STORED_FIELD_NUMBER: _ClassVar[int]
    container: str
    codec: str
    width: int
    height: int
    fps: float
    frames: int
    duration: _duration_pb2.Duration
    size_bytes: int
    pixel_format: str
    shown_as_stored: bool
    def __init__(self, container: _Optional[str] = ..., codec: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., fps: _Optional[float] = ..., frames: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., size_bytes: _Optional[int] = ..., pixel_format: _Optional[str] = ..., shown_as_stored: bool = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("video", "model", "version", "segments", "labels", "stage_seconds", "warnings", "max_frame_offset", "fetched_bytes", "activation", "fingerprint", "thumbnails", "embeddings", "request_id")
    class StageSecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STAGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_OFFSET_FIELD_NUMBER: _ClassVar[int]
    FETCHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    THUMBNAILS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    video: VideoMetadata
    model: str
    version: str
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    stage_seconds: _containers.ScalarMap[str, float]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    max_frame_offset: _duration_pb2.Duration
    fetched_bytes: int
    activation: _model_pb2.Activation
    fingerprint: str
    thumbnails: _containers.RepeatedCompositeFieldContainer[Thumbnail]
    embeddings: Embeddings
    request_id: str
    def __init__(self, video: _Optional[_Union[VideoMetadata, _Mapping]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., stage_seconds: _Optional[_Mapping[str, float]] = ..., warnings: _Optional[_Iterable[str]] = ..., max_frame_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., fetched_bytes: _Optional[int] = ..., activation: _Optional[_Union[_model_pb2.Activation, str]] = ..., fingerprint: _Optional[str] = ..., thumbnails: _Optional[_Iterable[_Union[Thumbnail, _Mapping]]] = ..., embeddings: _Optional[_Union[Embeddings, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Thumbnail(_message.Message):
    __slots__ = ("time", "width", "height", "jpeg")
    TIME_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    JPEG_FIELD_NUMBER: _ClassVar[int]
    time: _duration_pb2.Duration
    width: int
    height: int
    jpeg: bytes
    def __init__(self, time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., jpeg: _Optional[bytes] = ...) -> None: ...

class Embeddings(_message.Message):
    __slots__ = ("level", "model", "version", "fingerprint", "width", "dtype", "vectors", "start_s", "end_s", "view")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    level: EmbeddingLevel
    model: str
    version: str
    fingerprint: str
    width: int
    dtype: EmbeddingDtype
    vectors: bytes
    start_s: _containers.RepeatedScalarFieldContainer[float]
    end_s: _containers.RepeatedScalarFieldContainer[float]
    view: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, level: _Optional[_Union[EmbeddingLevel, str]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., fingerprint: _Optional[str] = ..., width: _Optional[int] = ..., dtype: _Optional[_Union[EmbeddingDtype, str]] = ..., vectors: _Optional[bytes] = ..., start_s: _Optional[_Iterable[float]] = ..., end_s: _Optional[_Iterable[float]] = ..., view: _Optional[_Iterable[int]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("decoded_s", "total_s")
    DECODED_S_FIELD_NUMBER: _ClassVar[int]
    TOTAL_S_FIELD_NUMBER: _ClassVar[int]
    decoded_s: float
    total_s: float
    def __init__(self, decoded_s: _Optional[float] = ..., total_s: _Optional[float] = ...) -> None: ...
