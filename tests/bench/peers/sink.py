"""What gRPC itself costs: a grpc.aio server that takes the messages of an upload and forgets them unread.

python -m tests.bench.peers.sink HOST:PORT
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc

SERVICE = "tubelet.v1.VideoClassifier"  # clients find it where they find a server of videos


async def serve(address: str) -> None:
    async def classify(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
        async for _ in messages:
            pass
        return b""

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler = grpc.stream_unary_rpc_method_handler(classify)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Classify": handler}),))
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
