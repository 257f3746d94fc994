"""A case: what it is called, what it may use, and the peers it starts.

A file of cases registers each with `@case()`; the runner gives it a `Case` with a fresh little
internet and a folder for configurations and logs.
"""

import json
import math
import os
import re
import time
from pathlib import Path

from lib import pki
from lib.net import Host, Net
from lib.peers import Client, Server, Wrap
from lib.process import Failure, Process, command

ROOT = Path(__file__).resolve().parents[3]
SIXGATE = Path(os.environ.get("SIXGATE") or ROOT / "target" / "release" / "sixgate").absolute()

# Root folders of other Debian releases, whose OpenVPN is older or newer; tests/run makes them.
SUITES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sixgate"

REGISTRY: list["Entry"] = []


class Entry:
    """A registered case."""

    def __init__(self, function, name: str, clients: int, alone: bool, own: bool, asked: bool):
        self.function = function
        self.name = name
        self.clients = clients
        # Not beside other cases: it measures time, loss or memory.
        self.alone = alone
        # About what only sixgate has; meaningless with a stock server.
        self.own = own
        # Runs only when it is asked for by name.
        self.asked = asked


def case(clients: int = 1, alone: bool = False, own: bool = False, asked: bool = False):
    """Registers a function of one argument as FILE.function_name."""
    def register(function):
        add(function.__module__, function.__name__.replace("_", "-"), function, clients, alone, own, asked)
        return function
    return register


def add(module: str, name: str, function, clients: int = 1, alone: bool = False, own: bool = False,
        asked: bool = False) -> None:
    """Registers one row of a table of cases as MODULE.NAME."""
    REGISTRY.append(Entry(function, f"{module}.{name}", clients, alone, own, asked))


class Shared:
    """What all cases of a run have in common: made once, never changed by a case."""

    def __init__(self, folder: Path):
        self.authority = pki.Authority(folder / "pki")
        self.authority.issue("server", usage="server")
        for name in ("client1", "client2"):
            self.authority.issue(name)
        self.static = pki.static_key(folder / "pki" / "static.key")
        self.v2_server = pki.v2_server_key(folder / "pki" / "v2-server.key")
        self.v2_client = pki.v2_client_key(self.v2_server, folder / "pki" / "v2-client.key")


class Case:
    """One case while it runs."""

    def __init__(self, entry: Entry, folder: Path, shared: Shared, stock: bool):
        self.entry = entry
        self.dir = folder
        self.shared = shared
        self.stock = stock
        # The Debian release whose OpenVPN is the client; the machine's own if None.
        self.suite: str | None = None
        self.net = Net(entry.clients)
        self._processes: list[Process] = []

    # ---- Peers ------------------------------------------------------------------------------------

    def server(self, *lines: str, wrap: str = "tls-crypt", start: bool = True, **options) -> Server:
        """A server from a configuration file: the usual lines, and `lines` after them."""
        server = Server(self, Wrap(wrap, self.shared), lines, **options)
        if start:
            server.start()
        return server

    def client(self, *lines: str, wrap: str = "tls-crypt", number: int = 1, up: bool = True, **options) -> Client:
        """Stock OpenVPN in client namespace `number`; waits until its tunnel is up, or not."""
        client = Client(self, self.net.clients[number - 1], f"client{number}", Wrap(wrap, self.shared), lines, **options)
        client.start()
        if up:
            client.wait_up()
        return client

    def process(self, args: list, name: str) -> Process:
        """A process of this case, logging to NAME.log in its folder."""
        process = Process(args, self.dir / f"{name}.log")
        self._processes.append(process)
        return process

    def sixgate(self, *args, host: Host | None = None, check: bool = True, timeout: float = 20):
        """Runs `sixgate ARGS` to its end, in a namespace if one is given."""
        inside = host.inside() if host else []
        done = command(*inside, SIXGATE, *args, check=check, timeout=timeout)
        with open(self.dir / "commands.log", "a") as log:
            log.write(f"$ sixgate {' '.join(map(str, args))}\n{done.stdout}[{done.returncode}]\n")
        return done

    def write(self, name: str, text: str) -> Path:
        path = self.dir / name
        path.write_text(text)
        return path

    # ---- Traffic ----------------------------------------------------------------------------------

    def ping(self, host: Host, address: str, count: int = 3, interval: float = 0.1, size: int = 56) -> None:
        """All answers or a failure."""
        deadline = math.ceil(count * interval) + 10
        done = host.run(*pinging(address, count, interval, deadline), "-s", size, check=False, timeout=deadline + 10)
        all_answered(done.stdout, count)

    def no_ping(self, host: Host, address: str, *args: str) -> None:
        """Not one answer."""
        done = host.run("ping", "-n", "-q", "-c", 3, "-i", 0.1, "-W", 1, *args, address, check=False)
        if " 0 received" not in done.stdout:
            raise Failure(f"ping {address} was expected to stay without an answer: {done.stdout.strip()}")

    def until_ping(self, host: Host, address: str, timeout: float = 30) -> None:
        """Waits for the first answer."""
        deadline = time.monotonic() + timeout
        while host.run("ping", "-n", "-q", "-c", 1, "-W", 1, address, check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise Failure(f"ping {address}: no answer for {timeout:.0f} s")
            time.sleep(0.1)

    def ping_server(self, client: Client) -> None:
        """Both families, small and as large as the tunnel carries."""
        for address, header in (("10.8.0.1", 28), ("fd00:10:8::1", 48)):
            self.ping(client.host, address)
            self.ping(client.host, address, size=1500 - header, count=2)

    def iperf(self, sender: Host, receiver: Host, address: str, mebibytes: int = 8) -> float:
        """So many bytes at least by TCP to `address`, and as many back; the slower one's Mbit/s."""
        speeds = []
        for back in ([], ["-R"]):
            # A server for each, as one that has just finished may still call itself busy.
            server = self.process(receiver.inside("iperf3", "-s", "-1", "-B", address, "--forceflush"), "iperf3-server")
            server.expect("Server listening")
            # iperf3 ends when all is handed to the sender's kernel, some of it still on its way: what the
            # windows of both ends can hold is sent on top.
            done = sender.run("iperf3", "-c", address, "-n", f"{mebibytes + 2}M", "-w", "256K", "-J", *back, timeout=60)
            report = json.loads(done.stdout)
            if "error" in report or "sum_received" not in report["end"]:
                raise Failure(f"iperf3 {address} {back}: {done.stdout}")
            received = report["end"]["sum_received"]
            if received["bytes"] < mebibytes << 20:
                raise Failure(f"iperf3 {address} {back}: only {received['bytes']} bytes arrived")
            speeds.append(received["bits_per_second"] / 1e6)
            server.kill()
        return min(speeds)

    # ---- The end ----------------------------------------------------------------------------------

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        self.net.close()


def pinging(address: str, count: int, interval: float, deadline: int) -> list:
    """The command that sends `count` echo requests and waits for as many answers until `deadline`; see `all_answered`."""
    return ["ping", "-n", "-i", interval, "-c", count, "-w", deadline, address]


def all_answered(output: str, count: int) -> None:
    """Fails unless the first `count` requests were answered. While an answer is late, `ping -w` sends
    more; without it, ping would hardly wait for the last one, and call it lost on a busy machine."""
    missing = set(range(1, count + 1)) - {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", output)}
    if missing:
        raise Failure(f"{len(missing)} of {count} echo requests without an answer: {sorted(missing)[:10]}\n{output[-1500:]}")


class Ping:
    """A ping that runs beside what happens, and has to lose nothing."""

    def __init__(self, t: Case, host: Host, address: str, count: int = 100, interval: float = 0.05):
        self.count = count
        self.deadline = int(count * interval) + 25
        command = pinging(address, count, interval, self.deadline)
        self.process = t.process(host.inside(*command), f"ping-{address}")
        self.process.expect("icmp_seq=10 ")

    def finish(self) -> None:
        self.process.expect("packets transmitted", timeout=self.deadline + 10, dies=True)
        all_answered(self.process.text(), self.count)


def tunnel_addresses(host: Host, device: str = "tun0") -> tuple[str | None, str | None]:
    """The global addresses of a tunnel device."""
    report = json.loads(host.run("ip", "-j", "addr", "show", "dev", device).stdout)
    found: dict[str, str] = {}
    for info in report[0]["addr_info"]:
        if info["scope"] == "global":
            found.setdefault(info["family"], info["local"])
    return found.get("inet"), found.get("inet6")


def negotiated(text: str, version: str, cipher: str) -> None:
    """Fails unless a stock client's log says that this TLS version and data cipher are in use."""
    if not re.search(rf"Control Channel: TLSv{re.escape(version)}\b", text):
        raise Failure(f"not TLS {version}")
    if not re.search(rf"Data Channel: cipher '{re.escape(cipher)}'", text):
        raise Failure(f"not {cipher}")
