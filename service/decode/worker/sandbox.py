"""The sandbox that a worker enters before it reads a client's bytes: three layers, where the kernel has them.

    rlimits   always: limits on address space and descriptors; no file grows, no core is dumped
    landlock  Linux 5.13: opening paths, TCP ports, signals and the memory of other processes is denied
    seccomp   only the system calls below: no open, no socket, no exec, no fork, no new executable memory

No layer can be left again. A worker has imported all that it needs before it enters them.
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

# clone(2): allowed for a thread, which shares memory and signal handlers and stays in its namespaces.
_CLONE_THREAD = 0x00000100 | 0x00000800 | 0x00010000  # CLONE_VM, CLONE_SIGHAND, CLONE_THREAD
_CLONE_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

_ALLOWED = (
    # Read the upload at offsets; receive messages and descriptors, wait for them.
    *("pread64", "fstat", "close", "recvfrom", "recvmsg", "pselect6", "ppoll"),
    # Memory, threads and their locks.
    *("brk", "munmap", "mremap", "madvise", "futex", "set_robust_list", "rseq"),
    *("sched_yield", "sched_getaffinity", "getcpu", "gettid", "getpid", "exit", "exit_group"),
    # Signal handlers, time, random numbers.
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "getrandom"),
)
_ALLOWED_WHERE_PRESENT = ("select", "poll")  # absent on newer processor architectures, such as aarch64
_ALLOWED_IF = (
    ("mmap", ArgCmp(2, CmpOp.MASKED_EQ, 0, _PROT_EXEC)),
    ("mprotect", ArgCmp(2, CmpOp.MASKED_EQ, 0, _PROT_EXEC)),
    ("clone", ArgCmp(0, CmpOp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD | _CLONE_NEW)),
    ("prctl", ArgCmp(0, CmpOp.EQ, _PR_SET_NAME)),  # FFmpeg names its threads
    ("fcntl", ArgCmp(1, CmpOp.EQ, _F_DUPFD_CLOEXEC)),  # mmap's own copy of a descriptor
    ("newfstatat", ArgCmp(3, CmpOp.EQ, _AT_EMPTY_PATH)),  # the C library's form of fstat
    ("sendto", ArgCmp(4, CmpOp.EQ, 0)),  # only to the connected peer
    ("write", ArgCmp(0, CmpOp.EQ, _STDERR)),
)


def prefer_for_oom_kill() -> None:
    """Have the kernel kill this worker, not the server, when the machine runs out of memory; proc(5)."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def prepare() -> None:
    """Do once, in the fork server, what all workers need: find the C library, compile the filter."""
    with suppress(OSError):
        landlockpy.abi_version()
    with suppress(OSError):
        seccompy.supported()
        _ = _system_call_filter().program


def enter(memory_bytes: int, max_descriptors: int) -> tuple[Protection, ...]:
    """Enter the sandbox for good, with limits on memory and descriptors; return the layers in force."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    protections = [Protection.RLIMITS]
    if enter_landlock():
        protections.append(Protection.LANDLOCK)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, max_descriptors),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if enter_seccomp():
        protections.append(Protection.SECCOMP)
    return tuple(protections)


def enter_landlock() -> bool:
    """Deny all that Landlock of this kernel can deny; return False if it is absent or may not be used."""
    scopes = landlockpy.Scope.ABSTRACT_UNIX_SOCKET | landlockpy.Scope.SIGNAL
    try:
        with landlockpy.Ruleset(scoped=scopes) as nothing:
            nothing.restrict()
    except landlockpy.LandlockError:
        return False
    return True


def enter_seccomp() -> bool:
    """Allow only the listed system calls; return False if the kernel, or this processor, has no filters."""
    try:
        _system_call_filter().load()
    except seccompy.SeccompError:
        return False
    return True


@cache
def _system_call_filter() -> seccompy.Filter:
    """Return the filter of system calls: those that are not listed fail with EPERM."""
    calls = seccompy.Filter(seccompy.Action.ERRNO | errno.EPERM)
    # The flags of clone3 lie in memory, which filters cannot read. After ENOSYS, the C library calls clone.
    calls.errno("clone3", errno.ENOSYS)
    for name in _ALLOWED:
        calls.allow(name)
    for name in _ALLOWED_WHERE_PRESENT:
        with suppress(ValueError):
            calls.allow(name)
    for name, condition in _ALLOWED_IF:
        calls.allow(name, args=[condition])
    return calls
