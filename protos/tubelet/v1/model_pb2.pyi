import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Activation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_UNSPECIFIED: _ClassVar[Activation]
    ACTIVATION_SOFTMAX: _ClassVar[Activation]
    ACTIVATION_SIGMOID: _ClassVar[Activation]
ACTIVATION_UNSPECIFIED: Activation
ACTIVATION_SOFTMAX: Activation
ACTIVATION_SIGMOID: Activation

class Model(_message.Message):
    __slots__ = ("name", "version", "family", "description", "licence", "labels", "sampling", "height", "width", "accuracy", "device", "dtype", "is_default", "source", "revision", "activation", "fingerprint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    family: str
    description: str
    licence: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    sampling: Sampling
    height: int
    width: int
    accuracy: _containers.RepeatedCompositeFieldContainer[Accuracy]
    device: str
    dtype: str
    is_default: bool
    source: str
    revision: str
    activation: Activation
    fingerprint: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., family: _Optional[str] = ..., description: _Optional[str] = ..., licence: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., accuracy: _Optional[_Iterable[_Union[Accuracy, _Mapping]]] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., is_default: bool = ..., source: _Optional[str] = ..., revision: _Optional[str] = ..., activation: _Optional[_Union[Activation, str]] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("frames_per_unit", "units_per_window", "window", "stride", "min_window", "max_window")
    FRAMES_PER_UNIT_FIELD_NUMBER: _ClassVar[int]
    UNITS_PER_WINDOW_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    MIN_WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_WINDOW_FIELD_NUMBER: _ClassVar[int]
    frames_per_unit: int
    units_per_window: int
    window: _duration_pb2.Duration
    stride: _duration_pb2.Duration
    min_window: _duration_pb2.Duration
    max_window: _duration_pb2.Duration
    def __init__(self, frames_per_unit: _Optional[int] = ..., units_per_window: _Optional[int] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stride: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., min_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Accuracy(_message.Message):
    __slots__ = ("dataset", "top1", "note")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    TOP1_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    top1: float
    note: str
    def __init__(self, dataset: _Optional[str] = ..., top1: _Optional[float] = ..., note: _Optional[str] = ...) -> None: ...
