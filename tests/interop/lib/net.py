"""Network namespaces: one small internet for each case.

      server ns                 wire ns                  client1 ns
    +-----------+   veth    +-------------+    veth    +-----------+
    | eth0 .1 ::1 |---------| s    br0  c1 |-----------| eth0 .11 ::11 |
    +-----------+           |           c2 |           +-----------+
                            +-------------+  \\
                                              \\  veth  +-----------+
                                               ---------| eth0 .12 ::12 |
                                                        +-----------+ client2 ns

The underlay is 203.0.113.0/24 and 2001:db8:6::/64. Nothing leads out of it: the namespaces have no
route to anywhere else and no veth to the host. Names carry the runner's PID and a number, so that
runs do not meet; every namespace made here is deleted at the end, and with it what is in it.
"""

import itertools
import os
import threading

from lib.process import Failure, command, stopping

V4 = "203.0.113."
V6 = "2001:db8:6::"

_numbers = itertools.count(1)
_made: set[str] = set()
_lock = threading.Lock()


class Host:
    """One namespace with an `eth0` on the wire."""

    def __init__(self, namespace: str, number: int):
        self.namespace = namespace
        self.number = number

    @property
    def v4(self) -> str:
        return f"{V4}{self.number}"

    @property
    def v6(self) -> str:
        return f"{V6}{self.number}"

    def inside(self, *args) -> list:
        """The arguments that run a command in here."""
        return ["ip", "netns", "exec", self.namespace, *args]

    def run(self, *args, **options):
        return command(*self.inside(*args), **options)

    def ip(self, *lines: str) -> None:
        """Runs lines of `ip -batch`."""
        command("ip", "-n", self.namespace, "-batch", "-", input="\n".join(lines) + "\n")

    def move(self, number: int) -> None:
        """Leaves the old transport addresses for new ones, in one go."""
        old = self.number
        self.number = number
        self.ip(f"addr del {V4}{old}/24 dev eth0", f"addr add {self.v4}/24 dev eth0",
                f"addr add {self.v6}/64 dev eth0 nodad", f"addr del {V6}{old}/64 dev eth0")


class Net:
    """The namespaces of one case."""

    def __init__(self, clients: int):
        self._prefix = f"sixgate-{os.getpid()}-{next(_numbers)}"
        self.wire = self._namespace("wire")
        bridge = Host(self.wire, 0)
        bridge.ip("link set lo up", "link add br0 type bridge forward_delay 0", "link set br0 up")
        self.server = self._host(bridge, "server", 1)
        self.clients = [self._host(bridge, f"client{n}", 10 + n) for n in range(1, clients + 1)]

    def _namespace(self, role: str) -> str:
        name = f"{self._prefix}-{role}"
        with _lock:
            if stopping.is_set():
                raise Failure("the run is being torn down")
            command("ip", "netns", "add", name)
            _made.add(name)
        return name

    def _host(self, bridge: Host, role: str, number: int) -> Host:
        host = Host(self._namespace(role), number)
        host.ip(f"link add eth0 type veth peer name p{number} netns {self.wire}", "link set lo up",
                "link set eth0 up", f"addr add {host.v4}/24 dev eth0", f"addr add {host.v6}/64 dev eth0 nodad")
        bridge.ip(f"link set p{number} master br0 up")
        return host

    def close(self) -> None:
        delete(name for name in list(_made) if name.startswith(f"{self._prefix}-"))


def delete(names) -> None:
    for name in names:
        command("ip", "netns", "del", name, check=False)
        with _lock:
            _made.discard(name)


def delete_all() -> None:
    """Deletes whatever is left of this run."""
    delete(list(_made))
