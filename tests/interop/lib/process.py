"""Processes with a log that can be waited on, and commands that must succeed.

Every process started here is remembered and ended by its own PID, whatever way the run ends.
"""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

_running: set["Process"] = set()
_lock = threading.Lock()
# Set once the run is being torn down: cases that still run in threads must not start anything more.
stopping = threading.Event()


class Failure(Exception):
    """What a case expected and did not see; the text is what a person reads first."""


def until(condition, what: str, timeout: float = 40):
    """Waits for something to become so, and returns it; a failure says `what` is the case instead."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failure(what)
        time.sleep(0.1)
    return found


def command(*args, check: bool = True, timeout: float = 60, **options) -> subprocess.CompletedProcess:
    """Runs a command to its end and returns it with its output as text."""
    args = [str(arg) for arg in args]
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    try:
        done = subprocess.run(
            args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=timeout, **options)
    except subprocess.TimeoutExpired as late:
        raise Failure(f"still running after {timeout:.0f} s: {' '.join(args)}\n{late.output or ''}") from None
    if check and done.returncode != 0:
        raise Failure(f"exit status {done.returncode}: {' '.join(args)}\n{done.stdout}")
    return done


def worker(pid: int) -> int:
    """The child of a process that runs the same program, or itself if there is none."""
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if Path(f"/proc/{child}/exe").readlink() == Path(f"/proc/{pid}/exe").readlink():
                return int(child)
    except FileNotFoundError:
        # One of them has just ended.
        pass
    return pid


def kill_child(pid: int, gone: bool = False) -> None:
    """Ends a process that nobody here can wait for; returns once it is `gone`, if that matters."""
    try:
        os.kill(pid, signal.SIGKILL)
        # One that is dead and only not buried yet has nothing open any more.
        while gone and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
            time.sleep(0.01)
    except (ProcessLookupError, FileNotFoundError):
        pass


class Process:
    """A process in the background whose output goes to `log`."""

    def __init__(self, args: list, log: Path, cwd: Path | None = None):
        self.args = [str(arg) for arg in args]
        self.log = log
        # A process that is started again writes behind what the one before it wrote.
        self._start = log.stat().st_size if log.exists() else 0
        with _lock, open(log, "ab") as output:
            if stopping.is_set():
                raise Failure("the run is being torn down")
            output.write(f"$ {' '.join(self.args)}\n".encode())
            output.flush()
            self._child = subprocess.Popen(
                self.args, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd)
            _running.add(self)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def worker(self) -> int:
        """The process that handles packets: the one that a sixgate with a keeper has forked, or itself."""
        return worker(self.pid)

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def text(self) -> str:
        """The log of this process so far."""
        with open(self.log, "rb") as log:
            log.seek(self._start)
            return log.read().decode(errors="replace")

    def mark(self) -> int:
        """A place in the log, for `expect(..., after=mark)`."""
        return len(self.text())

    def seen(self, pattern: str, after: int = 0) -> bool:
        return re.search(pattern, self.text()[after:]) is not None

    def count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.text()))

    def expect(self, pattern: str, timeout: float = 20, after: int = 0, dies: bool = False) -> re.Match:
        """Waits until the log matches; `dies` says that the process may end on the way."""
        deadline = time.monotonic() + timeout
        while True:
            alive = self.alive
            found = re.search(pattern, self.text()[after:])
            if found:
                return found
            if not alive and not dies:
                raise Failure(f"{self.log.name}: ended with {self._child.returncode} before /{pattern}/ was seen")
            if time.monotonic() > deadline or not alive:
                raise Failure(f"{self.log.name}: no /{pattern}/ within {timeout:.0f} s")
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            self._child.send_signal(number)

    def wait(self, timeout: float = 10) -> int:
        """The exit status."""
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.log.name}: still running after {timeout:.0f} s") from None

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10) -> int:
        """Asks the process to end, waits, and insists when it does not."""
        self.send(number)
        try:
            return self.wait(timeout)
        except Failure:
            self._child.kill()
            self._child.wait()
            raise
        finally:
            with _lock:
                _running.discard(self)

    def kill(self) -> None:
        """Ends the process at once, and the one that it may have forked."""
        if self.alive:
            child = self.worker
            if child != self.pid:
                # First: it would hear of the other's end, and tidy up.
                kill_child(child)
            self._child.kill()
            if child != self.pid:
                kill_child(child, gone=True)
        self._child.wait()
        with _lock:
            _running.discard(self)

    def resident_kib(self) -> int:
        """Memory in use now, a keeper's included."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.worker}/status").read_text())
        if not found:
            raise Failure(f"{self.log.name}: no memory figures; is it gone?")
        return int(found[1]) + self.keeper_kib()

    def keeper_kib(self) -> int:
        """What the keeper holds that the process it has forked does not."""
        if self.worker == self.pid:
            return 0
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return sum(int(kib) for kib in re.findall(r"(?m)^Private_(?:Clean|Dirty):\s+(\d+) kB", rollup))


def kill_all() -> None:
    """Ends whatever is still running of this run; nothing more is started after it."""
    with _lock:
        stopping.set()
        left = list(_running)
    for process in left:
        process.kill()

