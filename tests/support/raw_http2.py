"""A client that speaks HTTP/2 as a test tells it to, also wrongly: gRPC's own clients would refuse to."""

import socket
import ssl
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

Headers = Iterable[tuple[bytes, bytes]]

_PATIENCE_S = 60.0
_LARGEST_READ = 1 << 16
_WINDOW_BYTES = 65_535  # HTTP/2's own default
LIST_MODELS = b"/tubelet.v1.VideoClassifier/ListModels"
CLASSIFY = b"/tubelet.v1.VideoClassifier/Classify"


@dataclass(slots=True)
class Answer:
    """What came on a stream. A call of gRPC has its status among the headers."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytes = b""
    is_over: bool = False

    @property
    def status(self) -> int | None:
        """The code of gRPC; None without one."""
        found = self.headers.get(b"grpc-status")
        return None if found is None else int(found)


class RawHttp2:
    """A connection to a server at a port of this machine; ``context`` is for TLS.

    The server may send ``window_bytes`` of each answer before the client says that it has read some.
    It is over once the server has closed it. Nothing that is sent is checked.
    """

    def __init__(
        self, port: int, context: ssl.SSLContext | None = None, *, window_bytes: int = _WINDOW_BYTES
    ) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
        self.socket = plain if context is None else context.wrap_socket(plain, server_hostname="localhost")
        config = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._http2 = h2.connection.H2Connection(config)
        self._http2.initiate_connection()
        self._http2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window_bytes})
        self.answers: defaultdict[int, Answer] = defaultdict(Answer)
        self.is_over = False
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.socket.close()

    def call(self, path: bytes, headers: Headers = (), *, is_end: bool = False) -> int:
        """Send the headers of a call; return its stream."""
        stream = self._http2.get_next_available_stream_id()
        about = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]
        self._http2.send_headers(stream, [*about, *headers], end_stream=is_end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, is_end: bool = False) -> int:
        """Send as much of ``data`` as the server takes now; return how many bytes that was."""
        sent = 0
        while sent < len(data) and not self.is_over:
            room = min(self._http2.local_flow_control_window(stream), self._http2.max_outbound_frame_size)
            if not room:
                break
            part = data[sent : sent + room]
            sent += len(part)
            self._http2.send_data(stream, part, end_stream=is_end and sent == len(data))
            self.flush()
        return sent

    def flush(self) -> None:
        """Send what is waiting."""
        try:
            self.socket.sendall(self._http2.data_to_send())
        except OSError:
            self.is_over = True

    def read(self, timeout_s: float = _PATIENCE_S) -> bool:
        """Take in what the server sends next; return whether anything came in time."""
        self.socket.settimeout(timeout_s)
        try:
            data = self.socket.recv(_LARGEST_READ)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        if not data:
            self.is_over = True
            return False
        try:
            for event in self._http2.receive_data(data):
                self._note(event)
        except h2.exceptions.ProtocolError:
            self.is_over = True
        self.socket.settimeout(_PATIENCE_S)
        self.flush()
        return True

    def answer(self, stream: int) -> Answer:
        """Read until the answer to a call is complete, or the connection is over; return what came."""
        while not (self.answers[stream].is_over or self.is_over):
            if not self.read() and not self.is_over:
                raise TimeoutError(f"no answer within {_PATIENCE_S:g} s")
        return self.answers[stream]

    def _note(self, event: h2.events.Event) -> None:
        """Keep what an event tells of a stream."""
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self.answers[event.stream_id].headers |= dict(event.headers)
            case h2.events.DataReceived():
                self.answers[event.stream_id].data += event.data
                self._http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded() | h2.events.StreamReset():
                self.answers[event.stream_id].is_over = True
            case _:
                pass


def message(content: bytes, *, claims: int | None = None) -> bytes:
    """Frame a message of gRPC; ``claims`` is the length that it says it has."""
    return b"\0" + (len(content) if claims is None else claims).to_bytes(4, "big") + content
