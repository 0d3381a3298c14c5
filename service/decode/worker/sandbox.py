"""What a worker takes from itself before it meets a client's bytes: three layers, where the kernel has them.

    rlimits   always: the address space, the number of descriptors; no file grows, no core is dumped
    landlock  Linux 5.13: no path is opened, no TCP port, no signal goes out, nobody's memory is looked at
    seccomp   only the system calls below: no open, no socket, no exec, no fork, no new executable memory

None of them can be undone. What runs with them is a worker that has imported all that it needs.
"""

import errno
import resource
from contextlib import suppress
from functools import cache

import landlockpy
import seccompy
from seccompy import ArgCmp, CmpOp

from tubelet.service.decode.prctl import prctl
from tubelet.service.types.video import Protection

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_NAME = 15
_PROT_EXEC = 4
_F_DUPFD_CLOEXEC = 1030
_AT_EMPTY_PATH = 0x1000
_STDERR = 2

# clone(2): a thread shares memory and signal handlers, and stays in all of its namespaces.
_CLONE_THREAD = 0x00000100 | 0x00000800 | 0x00010000  # CLONE_VM, CLONE_SIGHAND, CLONE_THREAD
_CLONE_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

_FREE = (
    # The upload is read at offsets; messages and descriptors come, messages go.
    *("pread64", "fstat", "close", "recvfrom", "recvmsg", "pselect6", "ppoll"),
    # Memory, threads and their locks.
    *("brk", "munmap", "mremap", "madvise", "futex", "set_robust_list", "rseq"),
    *("sched_yield", "sched_getaffinity", "getcpu", "gettid", "getpid", "exit", "exit_group"),
    # Signals to itself, time, chance.
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "getrandom"),
)
_ON_SOME_PROCESSORS = ("select", "poll")  # the others never had them
_ON_CONDITION = (
    ("mmap", ArgCmp(2, CmpOp.MASKED_EQ, 0, _PROT_EXEC)),
    ("mprotect", ArgCmp(2, CmpOp.MASKED_EQ, 0, _PROT_EXEC)),
    ("clone", ArgCmp(0, CmpOp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD | _CLONE_NEW)),
    ("prctl", ArgCmp(0, CmpOp.EQ, _PR_SET_NAME)),  # FFmpeg names its threads
    ("fcntl", ArgCmp(1, CmpOp.EQ, _F_DUPFD_CLOEXEC)),  # mmap's own copy of a descriptor
    ("newfstatat", ArgCmp(3, CmpOp.EQ, _AT_EMPTY_PATH)),  # how the C library says fstat
    ("sendto", ArgCmp(4, CmpOp.EQ, 0)),  # to whom the socket is connected
    ("write", ArgCmp(0, CmpOp.EQ, _STDERR)),
)


def first_to_go() -> None:
    """Where the machine runs out of memory, the kernel shall take a worker and not the server; proc(5)."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def prepare() -> None:
    """Do beforehand what all workers need once: find the C library, compile the filter."""
    with suppress(OSError):
        landlockpy.abi_version()
    with suppress(OSError):
        seccompy.supported()
        _ = _system_calls().program


def enter(memory_bytes: int, max_descriptors: int) -> tuple[Protection, ...]:
    """Give everything up, for good; which layers are in force."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    protections = [Protection.RLIMITS]
    if landlock():
        protections.append(Protection.LANDLOCK)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, max_descriptors),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if seccomp():
        protections.append(Protection.SECCOMP)
    return tuple(protections)


def landlock() -> bool:
    """Deny all that this kernel can deny; False where it has no Landlock, or we may not use it."""
    scopes = landlockpy.Scope.ABSTRACT_UNIX_SOCKET | landlockpy.Scope.SIGNAL
    try:
        with landlockpy.Ruleset(scoped=scopes) as nothing:
            nothing.restrict()
    except landlockpy.LandlockError:
        return False
    return True


def seccomp() -> bool:
    """False where the kernel has no filters, or not for this processor, or we may not use them."""
    try:
        _system_calls().load()
    except seccompy.SeccompError:
        return False
    return True


@cache
def _system_calls() -> seccompy.Filter:
    """Whatever is not listed fails with EPERM."""
    calls = seccompy.Filter(seccompy.Action.ERRNO | errno.EPERM)
    # Its flags lie in memory, where no filter sees them. The C library goes on with clone.
    calls.errno("clone3", errno.ENOSYS)
    for name in _FREE:
        calls.allow(name)
    for name in _ON_SOME_PROCESSORS:
        with suppress(ValueError):
            calls.allow(name)
    for name, condition in _ON_CONDITION:
        calls.allow(name, args=[condition])
    return calls
