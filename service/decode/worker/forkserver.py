"""The fork server: a process that has imported everything, and forks workers of itself in milliseconds.

It handles no video and listens only to its parent, over a socket of packets. Each packet brings two
descriptors, a new worker's ends of its sockets; the reply is the worker's process id, or an error message.

A worker is forked twice: the intermediate process ends at once, so that the worker becomes the child of the
nearest subreaper, which is the server. So workers survive the end of the fork server. The server waits for
them, and they end with it, as if it had forked them itself.
"""

import contextlib
import gc
import json
import os
import socket
import sys
import traceback
from typing import Any

from tubelet.service.decode.limits import Limits
from tubelet.service.decode.prctl import kill_with_parent, set_process_name
from tubelet.service.decode.protocol import MAX_PACKET_BYTES
from tubelet.service.decode.worker import worker


def main(values: dict[str, Any]) -> None:
    """Fork a worker for each packet until the server closes the socket; ``values`` are the settings."""
    control = socket.socket(fileno=values.pop("control_fd"))
    settings = worker.Settings(**{**values, "limits": Limits(**values["limits"])})
    kill_with_parent(settings.server_pid)
    set_process_name("tubelet-forks")
    worker.prepare()
    # The garbage collector then ignores the objects of now, so that their pages stay shared with the workers.
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, MAX_PACKET_BYTES, 2)
        if not packet:
            return
        reply = _fork(settings, control, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)  # before the reply: an open copy would hide that the worker has ended
        control.send(reply)


def _fork(settings: worker.Settings, control: socket.socket, descriptors: list[int]) -> bytes:
    """Fork a worker that becomes the server's child; return its process id, or an error message."""
    our_end, their_end = socket.socketpair()
    with our_end, their_end:
        try:
            intermediate_pid = os.fork()
        except OSError as error:
            return str(error).encode()[:MAX_PACKET_BYTES]
        if intermediate_pid == 0:
            our_end.close()
            _become_worker(settings, control, descriptors, their_end)
        their_end.close()
        os.waitpid(intermediate_pid, 0)
        # Empty if the second fork failed. The worker goes on when our end is closed, which is after the wait.
        return our_end.recv(MAX_PACKET_BYTES) or b"the intermediate process could not fork"


def _become_worker(
    settings: worker.Settings, control: socket.socket, descriptors: list[int], their_end: socket.socket
) -> None:
    """Fork the worker from the intermediate process, and run it; neither process returns from here."""
    status = 1
    try:
        if os.fork() == 0:
            control.close()
            with their_end:
                their_end.send(str(os.getpid()).encode())
                their_end.recv(1)
            kill_with_parent(settings.server_pid)
            worker.main(settings, *descriptors)
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = 0 if end.code is None else 1
    except BaseException:
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
