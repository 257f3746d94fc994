"""The two ends of a tunnel: the server under test and stock OpenVPN as its client."""

import re
import signal
from pathlib import Path

from lib.net import Host
from lib.process import Failure, Process, until

PORT = 1194


class Wrap:
    """The configuration lines of one control channel wrapping, for either end."""

    NAMES = ("none", "tls-auth-sha1", "tls-auth-sha256", "tls-crypt", "tls-crypt-v2")

    def __init__(self, name: str, shared):
        both: list[str] = []
        server = client = None
        if name.startswith("tls-auth"):
            both = [f"auth {name.rsplit('-', 1)[1].upper()}"]
            server, client = f"tls-auth {shared.static} 0", f"tls-auth {shared.static} 1"
        elif name == "tls-crypt":
            server = client = f"tls-crypt {shared.static}"
        elif name == "tls-crypt-v2":
            server, client = f"tls-crypt-v2 {shared.v2_server}", f"tls-crypt-v2 {shared.v2_client}"
        elif name != "none":
            raise ValueError(name)
        self.server = both + ([server] if server else [])
        self.client = both + ([client] if client else [])


def openvpn(suite: str | None, config: Path, *options) -> list:
    """The arguments that run stock OpenVPN: the machine's own, or that of another Debian release."""
    from lib.case import ROOT, SUITES
    arguments = ["openvpn", "--config", config, *options]
    if not suite:
        return arguments
    root = SUITES / suite
    if not (root / "usr" / "sbin" / "openvpn").exists():
        raise Failure(f"no OpenVPN in {root}: run 'tests/run setup'")
    # `ip netns exec` gives the process its own mounts, so that these are gone when it is.
    return ["sh", "-ec", """
        root=$1 work=$2; shift 2
        mkdir -p "$root$work"
        mount --bind "$work" "$root$work"; mount --bind /dev "$root/dev"; mount -t proc proc "$root/proc"
        exec chroot "$root" "$@"
        """, "sh", root, ROOT / "target" / "interop", *arguments]


class Server:
    """The server under test, run from an ordinary OpenVPN configuration: sixgate, or stock OpenVPN
    when it is the harness that is under test."""

    def __init__(self, case, wrap: Wrap, lines, v4: bool = True, v6: bool = True, identity: tuple[Path, Path] | None = None,
                 ca: Path | None = None, host: Host | None = None, name: str = "server"):
        self.case = case
        self.host: Host = host or case.net.server
        self.name = name
        authority = case.shared.authority
        key, cert = identity or (authority.dir / "server.key", authority.dir / "server.crt")
        text = [
            f"port {PORT}", "proto udp", "dev tun0", "topology subnet",
            *(["server 10.8.0.0 255.255.255.0"] if v4 else []),
            *(["server-ipv6 fd00:10:8::/64"] if v6 else []),
            f"ca {ca or authority.cert}", f"cert {cert}", f"key {key}", "dh none", "verb 4",
            *wrap.server, *lines,
        ]
        if case.stock and "proto udp" in text:
            # A stock server listens on both families only when told udp6.
            text[text.index("proto udp")] = "proto udp6"
        if not any(line.startswith("keepalive") for line in lines):
            text.append("keepalive 10 60")
        self.config = case.write(f"{name}.conf", "\n".join(text) + "\n")
        self.process: Process | None = None

    def start(self) -> None:
        from lib.case import SIXGATE
        program = openvpn(self.case.suite, self.config) if self.case.stock else [SIXGATE, "run", self.config]
        self.process = self.case.process(self.host.inside(*program), self.name)
        self.wait_running()

    def wait_running(self) -> None:
        """Waits until the port is open and what a start does after that is done."""
        def listens() -> bool:
            found = self.host.run("ss", "-Hanu", f"sport = :{PORT}").stdout.strip() != ""
            if not found and not self.process.alive:
                raise Failure(f"the server ended with {self.process.wait()}: {self.process.text().strip().splitlines()[-1]}")
            return found

        until(listens, "the server does not listen after 20 s", timeout=20)
        if not re.search(r"(?m)^(log|log-append|syslog|daemon)\b", self.config.read_text()):
            # Device, addresses, scripts and privileges come between the port and this line.
            self.expect("Initialization Sequence Completed", "running: ")

    def expect(self, stock: str, sixgate: str, timeout: float = 20, after: int = 0):
        """Waits for what the server under test writes in its log."""
        return self.process.expect(stock if self.case.stock else sixgate, timeout=timeout, after=after)

    def alive(self) -> None:
        """Fails if the server is gone or has panicked."""
        if not self.process.alive:
            raise Failure(f"the server is gone: {self.process.wait()}")
        if self.process.seen("panicked at"):
            raise Failure("the server panicked")


class Client:
    """A stock OpenVPN client."""

    UP = "Initialization Sequence Completed"

    def __init__(self, case, host: Host, name: str, wrap: Wrap, lines=(), transport: int = 4,
                 identity: tuple[Path, Path] | None = None, ca: Path | None = None, profile: Path | None = None):
        self.case = case
        self.host = host
        self.name = name
        if profile:
            # A complete profile, as it is.
            self.config = profile
        else:
            authority = case.shared.authority
            key, cert = identity or (authority.dir / f"{name}.key", authority.dir / f"{name}.crt")
            address = case.net.server.v4 if transport == 4 else case.net.server.v6
            self.config = case.write(f"{name}.conf", "\n".join([
                "client", "dev tun0", *([] if any(line.startswith("lport") for line in lines) else ["nobind"]),
                f"remote {address} {PORT} udp{transport}", f"ca {ca or authority.cert}", f"cert {cert}", f"key {key}", "remote-cert-tls server",
                *wrap.client, *lines,
            ]) + "\n")
        self.process: Process | None = None

    def start(self, verb: int = 4) -> None:
        program = openvpn(self.case.suite, self.config, "--verb", verb, "--connect-retry", 1, 2)
        self.process = self.case.process(self.host.inside(*program), self.name)

    def wait_up(self, timeout: float = 30, after: int = 0) -> None:
        self.process.expect(self.UP, timeout=timeout, after=after)

    def wait_up_again(self, mark: int, timeout: float = 40) -> None:
        """Waits for another tunnel than the one at `mark`."""
        self.wait_up(timeout=timeout, after=mark)

    @property
    def v4(self) -> str:
        return self._address(0)

    @property
    def v6(self) -> str:
        return self._address(1)

    def _address(self, which: int) -> str:
        from lib.case import tunnel_addresses
        found = tunnel_addresses(self.host)[which]
        if not found:
            raise Failure(f"{self.name} has no IPv{'46'[which]} address in the tunnel")
        return found

    def stop(self) -> None:
        self.process.stop(signal.SIGTERM, timeout=15)
