"""A stand-in for the grpcurl program, for machines without it: gRPC's Python client with grpcurl's flags.

It knows the flags that the READMEs use, and no others, so that a line with a wrong one fails.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tubelet.v1 import video_classifier_pb2 as pb


def main() -> None:
    parser = argparse.ArgumentParser(prog="grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true")
    parser.add_argument("-cacert", type=Path)
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data", default="")
    parser.add_argument("address")
    parser.add_argument("method")
    given = parser.parse_args()
    service, _, name = given.method.partition("/")
    method = pb.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name[name]
    headers = tuple(
        (name, value.strip()) for name, _, value in (each.partition(":") for each in given.headers)
    )
    text = sys.stdin.read() if given.data == "@" else given.data or "{}"
    messages = _messages(text, GetMessageClass(method.input_type))
    with _channel(given) as channel:
        # On the wire every method is a stream of messages each way.
        call = channel.stream_stream(
            f"/{service}/{name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        for response in call(messages, metadata=headers, timeout=60):
            print(json_format.MessageToJson(response))


def _channel(given: argparse.Namespace) -> grpc.Channel:
    """Open a channel as the flags say."""
    if given.plaintext:
        return grpc.insecure_channel(given.address)
    return grpc.secure_channel(given.address, grpc.ssl_channel_credentials(given.cacert.read_bytes()))


def _messages(text: str, kind: type[Message]) -> Iterator[Message]:
    """Yield the messages in a text of JSON objects."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        yield json_format.ParseDict(value, kind())
        rest = rest[end:].strip()


if __name__ == "__main__":
    main()
