from tubelet.v1 import classification_pb2 as _classification_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLAIN_METHOD_UNSPECIFIED: _ClassVar[ExplainMethod]
    EXPLAIN_METHOD_RELEVANCE: _ClassVar[ExplainMethod]
    EXPLAIN_METHOD_ROLLOUT: _ClassVar[ExplainMethod]
    EXPLAIN_METHOD_ATTENTION: _ClassVar[ExplainMethod]
    EXPLAIN_METHOD_OCCLUSION: _ClassVar[ExplainMethod]
EXPLAIN_METHOD_UNSPECIFIED: ExplainMethod
EXPLAIN_METHOD_RELEVANCE: ExplainMethod
EXPLAIN_METHOD_ROLLOUT: ExplainMethod
EXPLAIN_METHOD_ATTENTION: ExplainMethod
EXPLAIN_METHOD_OCCLUSION: ExplainMethod

class ExplainOptions(_message.Message):
    __slots__ = ("classification", "method", "labels", "best", "against", "layer", "head")
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    AGAINST_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    classification: _classification_pb2.ClassifyOptions
    method: ExplainMethod
    labels: _containers.RepeatedScalarFieldContainer[str]
    best: int
    against: str
    layer: int
    head: int
    def __init__(self, classification: _Optional[_Union[_classification_pb2.ClassifyOptions, _Mapping]] = ..., method: _Optional[_Union[ExplainMethod, str]] = ..., labels: _Optional[_Iterable[str]] = ..., best: _Optional[int] = ..., against: _Optional[str] = ..., layer: _Optional[int] = ..., head: _Optional[int] = ...) -> None: ...

class SegmentMap(_message.Message):
    __slots__ = ("segment", "method", "label", "against", "layer", "head", "rows", "columns", "map", "on_no_patch", "start_s", "end_s", "rectangle", "view", "runs", "steps_left_out")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    AGAINST_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    ON_NO_PATCH_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    RECTANGLE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    STEPS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    segment: _classification_pb2.Segment
    method: ExplainMethod
    label: str
    against: str
    layer: int
    head: int
    rows: int
    columns: int
    map: bytes
    on_no_patch: float
    start_s: _containers.RepeatedScalarFieldContainer[float]
    end_s: _containers.RepeatedScalarFieldContainer[float]
    rectangle: Rectangle
    view: int
    runs: int
    steps_left_out: int
    def __init__(self, segment: _Optional[_Union[_classification_pb2.Segment, _Mapping]] = ..., method: _Optional[_Union[ExplainMethod, str]] = ..., label: _Optional[str] = ..., against: _Optional[str] = ..., layer: _Optional[int] = ..., head: _Optional[int] = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ..., map: _Optional[bytes] = ..., on_no_patch: _Optional[float] = ..., start_s: _Optional[_Iterable[float]] = ..., end_s: _Optional[_Iterable[float]] = ..., rectangle: _Optional[_Union[Rectangle, _Mapping]] = ..., view: _Optional[int] = ..., runs: _Optional[int] = ..., steps_left_out: _Optional[int] = ...) -> None: ...

class Rectangle(_message.Message):
    __slots__ = ("left", "top", "right", "bottom")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ...) -> None: ...
