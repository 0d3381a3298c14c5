"""The configuration: one frozen class for each table of the file, read from TOML, environment and flags.

A flag beats the environment, the environment beats the file. ``TUBELET_UPLOAD__MAX_BYTES=1000`` sets
``max_bytes`` in the table ``[upload]``. The text under each field is its line in the reference of
``deploy/README.md``.
"""

import os
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_dir
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tubelet.service.config.access import AccessConfig
from tubelet.service.config.cores import usable_cores
from tubelet.service.config.environment import PREFIX, check_variables, variables_in_force
from tubelet.service.config.explain import ExplainConfig
from tubelet.service.config.problems import BadConfig, problems
from tubelet.service.config.sources import Environment, File
from tubelet.service.config.table import Table
from tubelet.service.config.tls import ClientConfig, TlsConfig
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.target import plain_host
from tubelet.service.types.uri import parse_prefix

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# Parsed before pydantic would: it tries one version after the other, and reports the errors of both.
_Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(ip_network)]


class ServerConfig(Table):
    """Where the server listens, how many calls it takes, and how its connections behave."""

    host: Annotated[str, AfterValidator(plain_host)] = "::"
    """Address or host name at which gRPC and HTTP listen. `::` and `0.0.0.0` are all addresses, IPv6 (where
    the machine has it) and IPv4; `localhost` is `::1` and `127.0.0.1`."""
    port: int = Field(default=8500, ge=0, le=65535)
    """Port of gRPC; 0 picks a free one."""
    mtls_port: int | None = Field(default=None, ge=0, le=65535)
    """Second port of gRPC, for clients with a certificate of `server.tls.client_ca`; 0 picks a free one. Not
    set: with `server.tls.client_ca`, `server.port` is for them alone."""
    metrics_port: int = Field(default=8502, ge=0, le=65535)
    """Port of HTTP, for `/metrics`, `/healthz` and `/readyz`; 0 picks a free one."""
    max_videos_in_flight: int = Field(default=64, ge=1)
    """Most videos in flight at a time. One more is refused as `OVERLOADED` before anything is read of it."""
    max_videos_per_client: int | None = Field(default=None, ge=1)
    """Most videos in flight of one client: an identity, or an address where nobody is known. Not set: no
    limit."""
    max_videos_explained: int = Field(default=4, ge=1)
    """Most videos in flight that are explained. One more is refused as `OVERLOADED`."""
    max_other_calls: int = Field(default=1000, ge=1)
    """Most calls at a time beside those of videos in flight: health checks and watches, calls about models,
    uploads that are being refused. Above both numbers together, gRPC itself answers `RESOURCE_EXHAUSTED`
    without a reason. Each call may hold a message of `server.max_message_bytes` in memory. Half of them may
    watch the health of the server; a further watch ends the oldest."""
    retry_after_s: float = Field(default=1.0, gt=0)
    """Time after which an overloaded server asks clients to try again (`RetryInfo`)."""
    drain_s: float = Field(default=30.0, ge=0)
    """Time that calls in flight have to end after SIGTERM. Then they get `SERVER_STOPPED`."""
    max_message_bytes: int = Field(default=4 * MIB, ge=2 * MIB)
    """Largest gRPC message that is accepted. The Python client sends chunks of 1 MiB."""
    flow_control_window_bytes: int = Field(default=2 * MIB, ge=64 * KIB, le=1 * GIB)
    """Bytes of each upload that may arrive before the server reads them. They are held in memory, and no
    upload is faster than this much a round trip."""
    max_connection_age_s: float = Field(default=300.0, gt=0)
    """Age at which a connection takes no new calls, so that clients find new replicas. Calls in flight go
    on."""
    max_connections: int = Field(default=4000, ge=1)
    """Most connections at a time to each port of gRPC, at each address. One more is closed at once. Each
    holds an open file, and up to 48 KiB of memory with TLS."""
    max_calls_per_connection: int = Field(default=256, ge=1)
    """Most calls at a time on one connection. The client's library queues further ones."""
    keepalive_s: float = Field(default=60.0, ge=10)
    """Time without traffic after which the server tests a connection. One that does not answer is closed,
    and its calls end."""
    tls: TlsConfig = TlsConfig()
    access: AccessConfig = AccessConfig()

    @model_validator(mode="after")
    def _has_client_ca(self) -> "ServerConfig":
        """Check that there is an authority for the clients of ``mtls_port``."""
        if self.mtls_port is not None and self.tls.client_ca is None:
            raise ValueError("mtls_port needs server.tls.client_ca, the authority of its clients")
        return self


class UploadConfig(Table):
    """How the bytes of a video are received and stored, whether they are uploaded or fetched."""

    max_bytes: int = Field(default=2 * GIB, ge=1)
    """Largest video, uploaded or fetched. A larger one is refused as `UPLOAD_TOO_LARGE`."""
    idle_timeout_s: float = Field(default=120.0, gt=0)
    """Time without a new byte after which an upload fails. Bytes count once their message is complete, so
    slow clients send small messages. Time in which the server does not read does not count. A call whose
    client does not read on for as long, while events wait for it, fails too."""
    directory: Path | None = None
    """Folder for the bytes of videos, in files without names. Not set: the system's folder for temporary
    files."""

    @field_validator("directory")
    @classmethod
    def _is_writable(cls, directory: Path | None) -> Path | None:
        """Check that files can be created in the directory."""
        if directory is not None and not os.access(directory, os.W_OK | os.X_OK):
            raise ValueError("not a writable directory")
        return directory


class FetchConfig(Table):
    """How videos are fetched that a request names by a URI."""

    allow: tuple[str, ...] = ()
    """Prefixes of the URIs that may be fetched, such as `["https://media.example.com/clips/", "s3://clips"]`.
    They match whole path segments, before and after redirects. Empty: no URI is accepted."""
    allowed_private_networks: tuple[_Network, ...] = ()
    """Networks that the server may connect to although they are not public, such as `["10.1.0.0/16"]`."""
    max_concurrent_videos: int = Field(default=8, ge=1)
    """Most videos that are fetched at a time. Others wait; identities take turns."""
    block_bytes: int = Field(default=256 * KIB, ge=4 * KIB)
    """Smallest range that the server requests of a file."""
    read_ahead_bytes: int = Field(default=4 * MIB, ge=0)
    """Most bytes that are fetched ahead while a file is read from start to end."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Time that a remote server may take to send a range, or the next bytes of a file without ranges."""
    attempts: int = Field(default=3, ge=1)
    """Attempts to get one range of a file. When all have failed, the request fails."""
    options: dict[Literal["s3", "gs"], dict[str, Any]] = Field(default={})
    """Options of fsspec for `s3:` and `gs:` URIs, a table each: `endpoint_url`, `anon`, `token` and
    others."""

    @field_validator("allow")
    @classmethod
    def _are_prefixes(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        """Check that each text is a prefix of URIs."""
        for prefix in allow:
            parse_prefix(prefix)
        return allow


class DecodeConfig(Table):
    """How many decode workers there are, and what one video may cost them."""

    workers: int = Field(default_factory=usable_cores, ge=1)
    """Processes that decode, one video at a time each. Default: one a core; a container's CPU quota counts as
    that many cores."""
    threads: int = Field(default=1, ge=1)
    """Threads of FFmpeg in each worker."""
    hardware: Literal["none", "cuda"] = "none"
    """`cuda` decodes on the GPU's video engine (NVDEC) what it can, and the rest in software. It leaves the
    workers without their sandbox, and pays from 1080p on; see [Tuning](#tuning)."""
    max_pixels: int = Field(default=8192 * 4352, ge=1)
    """Most pixels of one frame, as stored. The default is 8192 x 4352."""
    max_frames: int = Field(default=1_000_000, ge=1)
    """Most frames of one video."""
    # FFmpeg runs out of memory beyond 1000.
    max_streams: int = Field(default=100, ge=1, le=1000)
    """Most streams of one file, of any kind: video, sound, subtitles."""
    max_duration_s: float = Field(default=24 * 3600.0, gt=0)
    """Longest duration of a video. Two frames far apart can claim any duration."""
    max_windows: int = Field(default=100_000, ge=1)
    """Most windows of one video. At a stride of one second, a day has 86,400."""
    max_cpu_s: float = Field(default=600.0, gt=0)
    """Most processor time that decoding one video may take."""
    max_wall_s: float = Field(default=1200.0, gt=0)
    """Longest time that one video may keep a worker busy. Time in which the worker waits for the engine does
    not count."""
    heartbeat_timeout_s: float = Field(default=30.0, gt=0)
    """Time without progress after which a worker counts as hung and is replaced. Its video fails."""
    long_video_after_s: float = Field(default=2.0, gt=0)
    """Time after which a video counts as long, if it keeps its worker while others wait. It then goes on at
    a lower priority, and another worker stands in."""
    max_long_videos: int = Field(default=8, ge=0)
    """Most workers at a time that stand in for those of long videos. Half of them are kept for identities
    that have no worker."""
    workers_per_video: int | None = Field(default=None, ge=1)
    """Most workers that decode parts of a long video, of ten minutes at least, while no other video waits for
    them. Not set: 1, but all in `tubelet batch`."""
    max_videos_per_worker: int = Field(default=100, ge=1)
    """Videos after which a worker is replaced by a fresh one. At 1, no two videos share a process."""
    max_uploading_videos: int = Field(default=8, ge=0)
    """Most videos at a time that are decoded while they are still being uploaded. Others are decoded once
    they are complete. While a worker waits for a slow client, or for a file at a URI, another one stands in;
    at most as many do."""
    memory_bytes: int = Field(default=2 * GIB, ge=512 * MIB)
    """Address space of one worker, of which 0.25 GiB is code."""
    shared_memory_bytes: int = Field(default=16 * MIB, ge=MIB)
    """Memory of one worker for frames on their way to the engine."""


class EngineConfig(Table):
    """Where and how models compute."""

    device: str = Field(default="auto", pattern=r"^(auto|(cpu|cuda)(:\d+)?(,(cpu|cuda)(:\d+)?)*)$")
    """`cpu`, `cuda`, or several, such as `cuda:0,cuda:1`. `auto`: all GPUs, the CPU where there is none. A
    batch that fails on one device is tried on another, and a device that fails three times is used no
    more."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Number format of the models. `auto`: bf16 where the chip multiplies it natively, else fp32. A format
    that the chip lacks is refused; see [Tuning](#tuning)."""
    threads: int | None = Field(default=None, ge=1)
    """Threads that compute on the CPU, a batch each. Not set: one a core."""
    max_batch_units: int | None = Field(default=None, ge=1)
    """Units in the largest batch of the spatial stage. Not set: 32 on a CPU, 128 on a GPU. Each model uses
    the smallest batch that is as fast; see [Tuning](#tuning)."""
    max_batch_windows: int = Field(default=64, ge=1)
    """Windows in the largest batch of the temporal stage."""
    cache_bytes: int = Field(default=64 * MIB, ge=0)
    """Memory for the embeddings of units: the same video again, or a scene that stands still, costs its
    decoding only. 0 keeps none. Clients who measure time can tell whether a video was seen before."""


class ModelsConfig(Table):
    """Which models there are, which are loaded, and which one answers by default."""

    store: Path = Field(default_factory=lambda: Path(user_data_dir("tubelet")) / "models")
    """Folder of models of your own, beside the embedded ones. Default: `models` in the user's data folder."""
    default: str = "camera-motion"
    """Model of requests that name none: `NAME`, the newest version, or `NAME:VERSION`."""
    load: tuple[str, ...] = ()
    """Models that are loaded beside the default, such as `["vit", "mvit:2"]`: `NAME` is all of its versions.
    Empty: all models of the store, none of the embedded ones."""

    @field_validator("default", "load")
    @classmethod
    def _are_references(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """Check that each text is NAME or NAME:VERSION."""
        for text in (value,) if isinstance(value, str) else value:
            ModelRef.parse(text)
        return value

    @property
    def default_ref(self) -> ModelRef:
        """The parsed ``default``."""
        return ModelRef.parse(self.default)

    @property
    def load_refs(self) -> tuple[ModelRef, ...]:
        """The parsed ``load``."""
        return tuple(map(ModelRef.parse, self.load))


class LogConfig(Table):
    """What the log on standard error has, and its form; see [Log](#log)."""

    format: Literal["text", "json"] = "text"
    """`text`: a line for each record, for people. `json`: an object a line, for collectors."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of the records. Calls that succeed are `info`, those that fail `warning`, those that
    fail with `INTERNAL` `error`. So `warning` has no line for successes, and `error` none for failures but
    those."""
    sample: float = Field(default=1.0, ge=0, le=1)
    """Share of the calls that succeed which have a line. Calls that fail have one whatever this is, unless
    `log.level` is `error`."""


class Config(BaseSettings):
    """The whole configuration, as ``tubelet serve --config FILE`` reads it."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__"
    )

    server: ServerConfig = ServerConfig()
    upload: UploadConfig = UploadConfig()
    fetch: FetchConfig = FetchConfig()
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    engine: EngineConfig = EngineConfig()
    explain: ExplainConfig = ExplainConfig()
    models: ModelsConfig = Field(default_factory=ModelsConfig)
    log: LogConfig = LogConfig()
    client: ClientConfig = ClientConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources of values, the strongest first: flags, environment, file."""
        return init_settings, Environment(settings_cls), File(settings_cls)


def load_config(path: Path | None = None, **flags: Any) -> Config:
    """Read the configuration from flags, environment and the file at ``path``.

    Raises:
        BadConfig: an unknown, renamed or removed key, a value out of its range, or a file that is absent or
            not TOML.
    """
    check_variables(Config)
    if path is not None and not path.is_file():
        raise BadConfig(f"no configuration file at {path}")

    class FileConfig(Config):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return FileConfig(**flags)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise BadConfig(*problems(error, Config, variables_in_force(Config, flags))) from error
