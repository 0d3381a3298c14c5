"""A plain grpc.aio server: a pool of threads that decode, one model behind a lock.

python -m tests.bench.peers.plain STORE MODEL HOST:PORT
"""

import asyncio
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import torch

from tests.bench.peers.work import Recogniser

METHOD = "/bench.Peer/Classify"
_THREADS = len(os.sched_getaffinity(0))  # decoding leaves the GIL alone: as many as there are cores


async def serve(store: Path, model: str, address: str) -> None:
    recogniser = Recogniser(store, model)
    torch.set_num_threads(_THREADS)
    device = threading.Lock()
    threads = ThreadPoolExecutor(_THREADS)

    def work(video: bytes) -> bytes:
        clip = recogniser.decode(video)
        with device:
            logits = recogniser.logits([clip])[0]
        return json.dumps({"label": int(logits.argmax())}).encode()

    async def classify(video: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(threads, work, video)

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler = grpc.unary_unary_rpc_method_handler(classify)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Peer", {"Classify": handler}),)
    )
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
