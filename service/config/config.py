"""The configuration: one frozen class a stage. TOML file, environment, flags; an unknown key is an error.

A flag beats the environment, the environment beats the file. ``TUBELET_UPLOAD__MAX_BYTES=1000`` sets
``max_bytes`` in the ``[upload]`` table.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from platformdirs import user_data_dir
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tubelet.service.config.cores import usable_cores
from tubelet.service.config.problems import BadConfig, closest, fields, problems
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.target import plain_host
from tubelet.service.types.uri import parse_prefix

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_PREFIX = "TUBELET_"

# Read by hand: pydantic tries one version after the other, and complains of both.
_Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(ip_network)]


class _Stage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ServerConfig(_Stage):
    host: Annotated[str, AfterValidator(plain_host)] = "::"  # every address, IPv6 and IPv4
    port: int = Field(default=8500, ge=0, le=65535)
    metrics_port: int = Field(default=8502, ge=0, le=65535)
    max_videos_in_flight: int = Field(default=64, ge=1)
    max_videos_per_client: int | None = Field(
        default=None, ge=1
    )  # in flight; a client is its certificate's name, else its address
    max_other_calls: int = Field(default=1000, ge=1)  # beside those of videos: of health, of models
    retry_after_s: float = Field(default=1.0, gt=0)
    drain_s: float = Field(default=30.0, ge=0)
    max_message_bytes: int = Field(default=4 * MIB, ge=2 * MIB)  # our client sends 1 MiB at a time
    window_bytes: int = Field(default=2 * MIB, ge=64 * KIB, le=1 * GIB)  # of one upload that come unasked
    max_connection_age_s: float = Field(default=300.0, gt=0)
    max_streams_per_connection: int = Field(
        default=256, ge=1
    )  # calls at once; a client's library queues more
    keepalive_s: float = Field(default=60.0, ge=10)  # after so long in silence a connection is tested


class UploadConfig(_Stage):
    max_bytes: int = Field(default=2 * GIB, ge=1)
    memory_bytes: int = Field(default=8 * MIB, ge=0)  # an upload that is larger moves to disk
    silence_s: float = Field(default=120.0, gt=0)  # without a message that brings a byte; then it is ended
    directory: Path | None = None  # where it moves to; None: the system's folder for temporary files

    @field_validator("directory")
    @classmethod
    def _is_there(cls, directory: Path | None) -> Path | None:
        if directory is not None and not os.access(directory, os.W_OK | os.X_OK):
            raise ValueError("no folder that can be written to")
        return directory


class FetchConfig(_Stage):
    """Of videos that a request names by a URI. ``upload.max_bytes`` limits what is fetched of each."""

    allow: tuple[str, ...] = ()  # prefixes of URIs, up to whole path segments; none: no URI is taken
    private_networks: tuple[_Network, ...] = ()  # that may be connected to all the same
    max_videos: int = Field(default=8, ge=1)  # at the same time; the others wait
    block_bytes: int = Field(default=256 * KIB, ge=4 * KIB)  # the least that is asked for
    read_ahead_bytes: int = Field(default=4 * MIB, ge=0)  # at most, while a file is read on and on
    timeout_s: float = Field(default=30.0, gt=0)  # for one answer, all of it
    attempts: int = Field(default=3, ge=1)  # to get a range of a file
    options: dict[
        Literal["s3", "gs"], dict[str, Any]
    ] = {}  # fsspec's for these: endpoint_url, anon, token, ...

    @field_validator("allow")
    @classmethod
    def _prefixes(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in allow:
            parse_prefix(prefix)
        return allow


class DecodeConfig(_Stage):
    workers: int = Field(default_factory=usable_cores, ge=1)
    threads: int = Field(default=1, ge=1)  # FFmpeg's threads in a worker
    hardware: Literal["none", "cuda"] = "none"  # cuda: a GPU's video engine; its driver needs an open sandbox
    max_pixels: int = Field(default=8192 * 4352, ge=1)  # of one frame as stored
    max_frames: int = Field(default=1_000_000, ge=1)
    max_streams: int = Field(default=100, ge=1, le=1000)  # of any kind; FFmpeg runs out of memory beyond 1000
    max_duration_s: float = Field(default=24 * 3600.0, gt=0)  # two frames far apart can claim any duration
    max_windows: int = Field(default=100_000, ge=1)  # of one video; a day of the default model has 86,400
    max_cpu_s: float = Field(default=600.0, gt=0)  # processor time that one video may cost
    max_wall_s: float = Field(default=1200.0, gt=0)  # for which one video may keep a worker busy
    silence_s: float = Field(default=30.0, gt=0)  # a worker that makes no progress for so long is replaced
    patience_s: float = Field(
        default=2.0, gt=0
    )  # after so long, a video lets others that wait decode beside it
    max_long: int = Field(default=8, ge=0)  # videos that do so at the same time
    max_videos_per_worker: int = Field(default=100, ge=1)  # then another takes its place
    max_uploading: int = Field(default=8, ge=0)  # videos that have a worker before all of them is there
    memory_bytes: int = Field(
        default=2 * GIB, ge=512 * MIB
    )  # a worker's address space; 0.25 GiB of it is code
    shared_memory_bytes: int = Field(default=16 * MIB, ge=MIB)  # a worker's frames on their way to the engine


class EngineConfig(_Stage):
    device: str = Field(
        default="auto", pattern=r"^(auto|(cpu|cuda)(:\d+)?(,(cpu|cuda)(:\d+)?)*)$"
    )  # auto: every GPU if there is one, else the CPU
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"  # auto: bf16 if the chip has it
    runtime: Literal["torch", "openvino"] = "torch"  # openvino: on a CPU; needs tubelet[openvino]
    threads: int | None = Field(default=None, ge=1)  # torch's threads on the CPU; None: one a core
    max_batch_units: int | None = Field(
        default=None, ge=1
    )  # None: 32 on a CPU, 128 on a GPU, fewer large ones
    max_batch_windows: int = Field(default=64, ge=1)
    cache_bytes: int = Field(default=64 * MIB, ge=0)  # of embeddings that are kept; 0: none are shared


class ModelsConfig(_Stage):
    store: Path = Field(default_factory=lambda: Path(user_data_dir("tubelet")) / "models")
    default: str = "camera-motion"  # NAME, the newest version, or NAME:VERSION; embedded or of the store
    load: tuple[
        str, ...
    ] = ()  # NAME, all versions, or NAME:VERSION, beside the default; empty: all of the store

    @field_validator("default", "load")
    @classmethod
    def _references(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for text in (value,) if isinstance(value, str) else value:
            ModelRef.parse(text)
        return value

    @property
    def default_ref(self) -> ModelRef:
        return ModelRef.parse(self.default)

    @property
    def load_refs(self) -> tuple[ModelRef, ...]:
        return tuple(map(ModelRef.parse, self.load))


class Config(BaseSettings):
    """The whole configuration, as ``tubelet serve --config FILE`` reads it."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__"
    )

    server: ServerConfig = ServerConfig()
    upload: UploadConfig = UploadConfig()
    fetch: FetchConfig = FetchConfig()
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    engine: EngineConfig = EngineConfig()
    models: ModelsConfig = Field(default_factory=ModelsConfig)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_config(path: Path | None = None, **flags: Any) -> Config:
    """Read the configuration.

    Raises:
        BadConfig: an unknown key, a value out of its range, or the file is absent or not TOML.
    """
    for name, value in os.environ.items():
        if name.upper().startswith(_PREFIX):
            _check_variable(name, value)
    if path is not None and not path.is_file():
        raise BadConfig(f"no configuration file at {path}")

    class FileConfig(Config):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return FileConfig(**flags)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise BadConfig(*problems(error, Config, _variables(flags))) from error


def variables() -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield each variable that sets keys: its name, the path of the key or table, and what it sets there.

    One that beats another comes after it. All are well formed.
    """
    for name in sorted(os.environ, key=lambda name: name.count("__")):
        path = tuple(name[len(_PREFIX) :].lower().split("__"))
        if name.upper().startswith(_PREFIX) and path[0] in Config.model_fields:
            value = os.environ[name]
            yield name, path, json.loads(value) if _is_table(path) else value


def _is_table(path: tuple[str, ...]) -> bool:
    """Whether the key is a table, which a variable holds as JSON."""
    stage, *key = path
    field = fields(Config, [stage]).get("__".join(key))
    return not key or (field is not None and get_origin(field.annotation) is dict)


def _variables(flags: Mapping[str, Mapping[str, object]]) -> dict[tuple[str, ...], str]:
    """The names of the variables, by the keys that they set and no flag does."""
    found: dict[tuple[str, ...], str] = {}
    for name, path, content in variables():
        # Beside the keys of a table that a variable holds, the file may have some of its own.
        paths = [(*path, key) for key in content] if isinstance(content, dict) else [path]
        found |= dict.fromkeys(paths, name)
    by_flag = {(stage, key) for stage, keys in flags.items() for key in keys}
    return {path: name for path, name in found.items() if path not in by_flag}


def _check_variable(name: str, value: str) -> None:
    """What of a variable is wrong whatever the key takes; pydantic's errors do not name variables.

    Raises:
        BadConfig: no key begins so, or a list or table is not written as JSON.
    """
    stage, *key = name[len(_PREFIX) :].lower().split("__")
    if stage not in Config.model_fields:
        # What has no __ is none of ours: Kubernetes tells of a service by TUBELET_SERVICE_HOST and the like.
        if key:
            near = closest([stage], Config.model_fields)
            raise BadConfig(f"{name} in the environment: no key begins with {stage}{near}")
        return
    field = fields(Config, [stage]).get("__".join(key))
    kind = get_origin(field.annotation) if field else None
    if _is_table((stage, *key)):
        wanted = "a table is written as JSON"
    elif kind is tuple:
        wanted = f'a list is written as JSON, such as ["a", "b"]; found {value!r}'
    else:
        return
    try:
        json.loads(value)
    except ValueError:
        raise BadConfig(f"{name} in the environment: {wanted}") from None
