"""System calls made in a running process, as an intruder would from inside. For x86_64."""

import ctypes
import os
import re
from pathlib import Path

from lib.process import Failure

ATTACH, DETACH, SINGLESTEP, GETREGS, SETREGS = 16, 17, 9, 12, 13
R10, R9, R8, RAX, RDX, RSI, RDI, ORIG_RAX, RIP = 7, 8, 9, 10, 12, 13, 14, 15, 16

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request: int, pid: int, data=None) -> None:
    if libc.ptrace(request, pid, None, data) < 0:
        raise Failure(f"ptrace {request}: {os.strerror(ctypes.get_errno())}")


def instruction(pid: int) -> int:
    """Where the process has a `syscall`."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end, mode = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
            if "x" in mode and "[vsyscall]" not in line:
                mem.seek(int(start, 16))
                at = mem.read(int(end, 16) - int(start, 16)).find(b"\x0f\x05")
                if at >= 0:
                    return int(start, 16) + at
    raise Failure("no system call instruction")


def inject(pid: int, number: int, *arguments: int) -> int | None:
    """What the call returns; `None` if the process did not outlive it. It goes on where it was."""
    where = instruction(pid)
    ptrace(ATTACH, pid)
    os.waitpid(pid, 0)
    before = (ctypes.c_ulonglong * 27)()
    ptrace(GETREGS, pid, before)
    changed = type(before)(*before)
    for register, value in zip((RDI, RSI, RDX, R10, R8, R9), (*arguments, 0, 0, 0, 0, 0, 0)):
        changed[register] = value & (1 << 64) - 1
    # The call that it waits in is not to be started again now.
    changed[RAX], changed[ORIG_RAX], changed[RIP] = number, (1 << 64) - 1, where
    ptrace(SETREGS, pid, changed)
    ptrace(SINGLESTEP, pid)
    # An end is left for whoever has started it.
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT).si_code != os.CLD_TRAPPED:
        return None
    os.waitpid(pid, 0)
    ptrace(GETREGS, pid, changed)
    ptrace(SETREGS, pid, before)
    ptrace(DETACH, pid)
    return ctypes.c_longlong(changed[RAX]).value
