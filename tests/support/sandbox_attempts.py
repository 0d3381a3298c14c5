"""A program that enters the workers' sandbox and attempts what a hijacked worker would.

``python -m tests.support.sandbox_attempts JSON``, where JSON names the layers to enter, and a file, a port
and a process that exist. The program prints the outcome of each attempt to standard error, as JSON: the name
of an error number, or "done".
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tubelet.service.config.config import GIB
from tubelet.service.decode.worker import sandbox

_LIBC = ctypes.CDLL(None, use_errno=True)
_DESCRIPTORS = 16
_O_RDONLY_AT_CWD = -100
_CALLS = {  # x86_64, aarch64; asm/unistd.h
    "openat2": (437, 437),
    "io_uring_setup": (425, 425),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "clone": (56, 220),
    "unshare": (272, 97),
    "bpf": (321, 280),
}
_PTRACE_ATTACH = 16
_SIGCHLD = 17


def system_call(name: str, *arguments: int | bytes) -> int:
    """Make the system call ``name`` directly, without the C library's wrapper."""
    number = _CALLS[name][os.uname().machine == "aarch64"]
    result = _LIBC.syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def clone() -> None:
    if system_call("clone", _SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)


def execute() -> None:
    os.execv("/bin/true", ["true"])


def connect(port: int) -> None:
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", port))


def listen() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))


def map_executable() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def raise_limit() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError as error:  # Python reports EPERM as ValueError here
        raise PermissionError(errno.EPERM, str(error)) from error


def grow_file(path: str) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(b"x")


def forbidden_attempts(path: str, port: int, pid: int) -> dict[str, Callable[[], Any]]:
    """Return the attempts that the sandbox must deny, by name."""
    return {
        "read a file": lambda: open(path, "rb").close(),
        "write a file": lambda: grow_file(path),
        "openat2": lambda: system_call("openat2", _O_RDONLY_AT_CWD, path.encode(), bytes(24), 24),
        "list a folder": lambda: os.listdir(os.path.dirname(path)),
        "stat a file": lambda: os.stat(path),
        "remove a file": lambda: os.unlink(path),
        "connect": lambda: connect(port),
        "listen": listen,
        "datagram socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "execute": execute,
        "fork": fork,
        "clone": clone,
        "signal another": lambda: os.kill(pid, 0),
        "ptrace": lambda: system_call("ptrace", _PTRACE_ATTACH, pid, 0, 0),
        "read another's memory": lambda: system_call("process_vm_readv", pid, 0, 0, 0, 0, 0),
        "executable memory": map_executable,
        "memory file": lambda: os.close(os.memfd_create("x")),
        "new namespace": lambda: system_call("unshare", 0x10000000),
        "io_uring": lambda: system_call("io_uring_setup", 1, bytes(120)),
        "bpf": lambda: system_call("bpf", 0, bytes(120), 120),
        "more address space": raise_limit,
        "write to standard output": lambda: os.write(1, b"x"),
    }


def allowed_attempts(shared_fd: int) -> dict[str, Callable[[], Any]]:
    """Return what a worker needs beside PyAV and the sandbox must allow, by name."""
    return {
        "allocate": lambda: np.ones(64 << 20, np.uint8).sum(),
        "map shared memory": lambda: mmap.mmap(shared_fd, mmap.PAGESIZE).close(),
        "stat a descriptor": lambda: os.fstat(shared_fd),
        "read at an offset": lambda: os.pread(shared_fd, 1, 0),
        "start a thread": lambda: threading.Thread(target=int).start(),
    }


def outcome_of(action: Callable[[], Any]) -> str:
    """Call ``action``; return the name of its error number, or "done"."""
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def main(request: dict[str, Any]) -> None:
    shared_fd = os.memfd_create("shared")
    os.ftruncate(shared_fd, mmap.PAGESIZE)
    sandbox.prepare()
    in_force: list[str] = []
    match request["layers"]:
        case "all":
            in_force = list(sandbox.enter(2 * GIB, _DESCRIPTORS))
        case "landlock":
            in_force = ["landlock"] * sandbox.enter_landlock()
        case "seccomp":
            in_force = ["seccomp"] * sandbox.enter_seccomp()
    outcomes = {
        "in_force": in_force,
        "forbidden": {
            name: outcome_of(action)
            for name, action in forbidden_attempts(request["path"], request["port"], request["pid"]).items()
            if name not in request["without"]
        },
        "allowed": {name: outcome_of(action) for name, action in allowed_attempts(shared_fd).items()},
    }
    print(json.dumps(outcomes), file=sys.stderr, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
