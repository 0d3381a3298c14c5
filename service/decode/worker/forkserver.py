"""The fork server: a process with everything imported that forks workers of itself, in milliseconds.

It holds no video and hears only its parent, over a socket of packets: each brings the two descriptors that
are a new worker's ends of its sockets, and is answered with the worker's process number, or with what went
wrong.

A worker is forked twice over: the process between ends at once, so that the worker becomes the child of the
nearest subreaper, which the server has made itself. So the end of this process costs no worker, and the
server waits for its workers, and they die with it, as if it had forked them itself.
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
from tubelet.service.decode.prctl import call_itself, die_with
from tubelet.service.decode.protocol import MAX_PACKET_BYTES
from tubelet.service.decode.worker import worker


def main(values: dict[str, Any]) -> None:
    control = socket.socket(fileno=values.pop("control_fd"))
    settings = worker.Settings(**{**values, "limits": Limits(**values["limits"])})
    die_with(settings.server_pid)
    call_itself("tubelet-forks")
    worker.prepare()
    # What is there now stays: collections pass it over, so that its pages stay shared with the workers.
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, MAX_PACKET_BYTES, 2)
        if not packet:
            return
        forked = _fork(settings, control, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)  # first: while a copy is open, the worker's end goes unnoticed
        control.send(forked)


def _fork(settings: worker.Settings, control: socket.socket, descriptors: list[int]) -> bytes:
    """The number of a new worker that is the server's child."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            between = os.fork()
        except OSError as error:
            return str(error).encode()[:MAX_PACKET_BYTES]
        if between == 0:
            ours.close()
            _become_worker(settings, control, descriptors, theirs)
        theirs.close()
        os.waitpid(between, 0)
        # Empty where the second fork failed. Our end is closed after that: it tells the worker to go on.
        return ours.recv(MAX_PACKET_BYTES) or b"the process between could not fork"


def _become_worker(
    settings: worker.Settings, control: socket.socket, descriptors: list[int], theirs: socket.socket
) -> None:
    """Does not return: neither in the process between nor in the worker."""
    status = 1
    try:
        if os.fork() == 0:
            control.close()
            with theirs:
                theirs.send(str(os.getpid()).encode())
                theirs.recv(1)
            die_with(settings.server_pid)
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
