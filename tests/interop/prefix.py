"""Clients' addresses follow the prefix of the line: the tunnel device's addresses come, are deprecated and go,
as netifd does it, under live clients."""

import json
import sys
import time

from client_host import Sixgate

from lib.case import ROOT, add, case, tunnel_addresses
from lib.peers import Client, Wrap
from lib.process import Failure, until
from reload import edit, reload

STABLE = "fd00:10:8::"
FIRST = "2001:db8:a:1::"
SECOND = "2001:db8:b:1::"
STEADY = ROOT / "tests" / "interop" / "lib" / "steady.py"


class Line:
    """What a network daemon does to an interface when the line comes, changes and goes."""

    def __init__(self, host, device: str = "tun0"):
        self.host = host
        self.device = device

    def give(self, prefix: str, bits: int = 64) -> None:
        # What is longer than a /64 is not on the link as a whole.
        short = " noprefixroute" if bits < 64 else ""
        self.host.ip(f"addr add {prefix}1/{bits} dev {self.device} nodad{short} preferred_lft 1800 valid_lft 3600",
                     *([f"route add {prefix}/64 dev {self.device}"] if short else []))

    def deprecate(self, prefix: str, valid: int = 3600, bits: int = 64) -> None:
        short = " noprefixroute" if bits < 64 else ""
        self.host.ip(f"addr change {prefix}1/{bits} dev {self.device}{short} preferred_lft 0 valid_lft {valid}")

    def withdraw(self, prefix: str, bits: int = 64) -> None:
        self.host.ip(f"addr del {prefix}1/{bits} dev {self.device}",
                     *([f"route del {prefix}/64 dev {self.device}"] if bits < 64 else []))


def serve(t, *lines: str):
    return t.server(f"server-ipv6 auto {STABLE}/64", *lines, v6=False)


def addresses(host, device: str = "tun0") -> list[str]:
    """The global IPv6 addresses of a device; none while it is gone for a moment."""
    done = host.run("ip", "-j", "-6", "addr", "show", "dev", device, check=False)
    report = json.loads(done.stdout) if done.returncode == 0 else []
    return [info["local"] for link in report for info in link.get("addr_info", []) if info.get("scope") == "global"]


def within(address: str, prefix: str) -> bool:
    return address.startswith(prefix.removesuffix("::") + ":")


def address_in(t, client, prefix: str, timeout: float = 40) -> str:
    """Waits until the client has an address in a prefix."""
    deadline = time.monotonic() + timeout
    while True:
        found = [address for address in addresses(client.host) if within(address, prefix)]
        if found:
            return found[0]
        if time.monotonic() > deadline:
            raise Failure(f"{client.name} has {addresses(client.host)}, nothing in {prefix}")
        time.sleep(0.1)


def host_part(address: str) -> str:
    return ":".join(address.split(":")[-4:])


def until_gone(t, client, prefix: str, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while any(within(address, prefix) for address in addresses(client.host)):
        if time.monotonic() > deadline:
            raise Failure(f"{client.name} still has {addresses(client.host)}")
        time.sleep(0.1)


class Steady:
    """A TCP connection between a client and the server's stable address."""

    def __init__(self, t, client, address: str = f"{STABLE}1", port: int = 7000):
        self.echo = t.process(t.net.server.inside(sys.executable, STEADY, "echo", address, port), f"echo{port}")
        self.echo.expect("listening")
        self.talk = t.process(client.host.inside(sys.executable, STEADY, "talk", address, port), f"talk{port}")
        self.talk.expect("5 answers")
        self.source = self.talk.expect(r"from (\S+)")[1]

    def goes_on(self, timeout: float = 40) -> None:
        self.talk.expect(r"\d+ answers", timeout=timeout, after=self.talk.mark())


def new_client(t, which: str, *lines: str, number: int = 1):
    """`own`: sixgate; `2.6`, `2.7`: stock; `with a script`: stock, with a script that sets the second address."""
    if which == "own":
        client = Sixgate(t, t.net.clients[number - 1], f"client{number}", Wrap("tls-crypt", t.shared), ("verb 4", *lines))
        client.start()
        client.wait_up()
        return client
    t.suite = "sid" if which.startswith("2.7") else None
    return t.client(*lines, number=number)


def arrivals(server) -> int:
    return server.process.count("connected as peer")


# ---- Renumbering -------------------------------------------------------------------------------------

def renumbering(which: str, stays: bool):
    """A client before, with, and after a global prefix, and with another one; `stays`: without a new connection."""
    def run(t):
        line = Line(t.net.server)
        server = serve(t, "client-to-client")
        client = new_client(t, which)
        stable = address_in(t, client, STABLE)
        t.ping(client.host, f"{STABLE}1")
        t.ping(t.net.server, stable)
        line.give(FIRST)
        first = address_in(t, client, FIRST)
        t.until_ping(client.host, f"{FIRST}1")
        # In both directions, and the stable prefix by its route.
        t.until_ping(t.net.server, first)
        t.until_ping(client.host, f"{STABLE}1")
        line.give(SECOND)
        line.deprecate(FIRST, valid=12)
        second = address_in(t, client, SECOND)
        t.until_ping(client.host, f"{SECOND}1")
        t.until_ping(t.net.server, second)
        t.until_ping(client.host, f"{STABLE}1")
        until_gone(t, client, FIRST)
        parts = {host_part(address) for address in (stable, first, second)}
        if len(parts) != 1:
            raise Failure(f"the host part changes: {parts}")
        # The old address still leads to the client for as long as its prefix is valid, and no longer.
        client.host.ip(f"addr add {first}/128 dev tun0 nodad")
        t.until_ping(t.net.server, first)
        until(lambda: f"{FIRST}1" not in addresses(t.net.server), "the old address of the server stays", timeout=30)
        t.no_ping(client.host, f"{STABLE}1", "-I", first)
        client.host.ip(f"addr del {first}/128 dev tun0")
        t.ping(client.host, f"{STABLE}1")
        t.ping(t.net.server, client.v4)
        if stays != (arrivals(server) == 1):
            raise Failure(f"{arrivals(server)} connections")
        server.alive()
    return run


for which, stays in (("2.6", False), ("2.7", True), ("own", True)):
    add(__name__, f"renumbering.{which}", renumbering(which, stays), own=True)

SCRIPT = """#!/bin/sh
exec ip -6 addr replace "$OPENVPN_ifconfig_ipv6_stable" dev "$dev" nodad
"""


def stable_connection(which: str, script: bool):
    """TCP between stable addresses outlives two changes of the prefix."""
    def run(t):
        line = Line(t.net.server)
        server = serve(t)
        lines = []
        if script:
            path = t.write("stable.sh", SCRIPT)
            path.chmod(0o755)
            lines = ["script-security 2", f"up {path}"]
        line.give(FIRST)
        client = new_client(t, which, *lines)
        address_in(t, client, FIRST)
        stable = address_in(t, client, STABLE)
        steady = Steady(t, client)
        if steady.source != stable:
            raise Failure(f"the connection comes from {steady.source}")
        for old, new in ((FIRST, SECOND), (SECOND, FIRST)):
            line.give(new) if new == SECOND else t.net.server.ip(
                f"addr change {new}1/64 dev tun0 preferred_lft 1800 valid_lft 3600")
            line.deprecate(old)
            address_in(t, client, new)
            until_gone(t, client, old)
            steady.goes_on()
        # And the stable address is reached from the other side, too.
        t.ping(t.net.server, stable)
        server.alive()
    return run


for which, script in (("own", False), ("2.6", True), ("2.7", True)):
    add(__name__, f"stable-connection.{which}", stable_connection(which, script), own=True)


@case(clients=2, own=True)
def ipv4_and_other_clients_go_on(t):
    """TCP over IPv4 outlives a renumbering, with either way of telling the client."""
    line = Line(t.net.server)
    serve(t)
    one = new_client(t, "own")
    two = new_client(t, "2.6", number=2)
    line.give(FIRST)
    address_in(t, one, FIRST), address_in(t, two, FIRST)
    v4 = one.v4
    steady = Steady(t, one)
    line.give(SECOND)
    line.deprecate(FIRST)
    address_in(t, one, SECOND), address_in(t, two, SECOND)
    steady.goes_on()
    if one.v4 != v4:
        raise Failure(f"another IPv4 address: {one.v4}")
    parts = {host_part(address_in(t, client, SECOND)) for client in (one, two)}
    if len(parts) != 2:
        raise Failure("two clients have one host part")
    t.until_ping(one.host, f"{SECOND}1")
    t.until_ping(two.host, f"{SECOND}1")


@case(own=True)
def a_line_that_is_gone_for_good(t):
    """Without a global prefix clients have their stable address alone; a short break changes nothing."""
    line = Line(t.net.server)
    server = serve(t)
    line.give(FIRST)
    client = new_client(t, "own")
    first = address_in(t, client, FIRST)
    line.withdraw(FIRST)
    time.sleep(2)
    line.give(FIRST)
    time.sleep(2)
    if address_in(t, client, FIRST) != first or server.process.seen("no global prefix"):
        raise Failure("a break of two seconds was noticed")
    line.withdraw(FIRST)
    until_gone(t, client, FIRST)
    t.ping(client.host, f"{STABLE}1")
    if arrivals(server) != 1:
        raise Failure("it has connected again")


@case(own=True)
def addresses_of_its_own_are_put_back(t):
    """A network daemon that takes charge of the device clears it first."""
    server = serve(t, "route-ipv6 fd00:77::/64", "route 192.168.77.0 255.255.255.0")
    client = new_client(t, "own")
    t.net.server.ip("addr flush dev tun0")
    server.process.expect("it is there again")
    t.until_ping(client.host, f"{STABLE}1")
    t.until_ping(client.host, "10.8.0.1")
    for family, net in ((4, "192.168.77.0/24"), (6, "fd00:77::/64")):
        if "tun0" not in t.net.server.run("ip", f"-{family}", "route", "show", net).stdout:
            raise Failure(f"the route {net} is gone")


@case(own=True)
def a_configuration_read_again_changes_no_address(t):
    line = Line(t.net.server)
    server = serve(t, "max-clients 5", "explicit-exit-notify 1")
    line.give(FIRST)
    client = new_client(t, "own")
    first, stable = address_in(t, client, FIRST), address_in(t, client, STABLE)
    steady = Steady(t, client)
    edit(server, "max-clients 5", "max-clients 6")
    if "keep their tunnel: 1" not in reload(server):
        raise Failure(server.process.text()[-2000:])
    if f"{FIRST}1" not in addresses(t.net.server):
        raise Failure("an address that is not sixgate's is gone")
    steady.goes_on()
    line.give(SECOND)
    line.deprecate(FIRST)
    address_in(t, client, SECOND)
    steady.goes_on()
    # Another stable prefix is a new start.
    edit(server, f"{STABLE}/64", "fd00:10:9::/64")
    mark = client.process.mark()
    reload(server, "everything is closed and opened again")
    client.wait_up_again(mark)
    moved = address_in(t, client, "fd00:10:9::")
    if host_part(moved) != host_part(stable) or host_part(first) != host_part(stable):
        raise Failure(f"{moved} has another host part than {stable}")


# ---- Nothing beside the tunnel ------------------------------------------------------------------------

def nothing_beside(which: str, v6: bool):
    """All traffic through the tunnel: IPv6, too, though nobody has said so, and though there may be none."""
    def run(t):
        # Somewhere to go by default: another machine on the wire.
        t.net.clients[0].ip("route add default via 203.0.113.1", "route add default via 2001:db8:6::1 metric 1024")
        t.net.server.ip("addr add 2001:db8:99::1/128 dev lo")
        t.server('push "redirect-gateway def1"', 'push "route-gateway 10.8.0.1"', v6=v6)
        client = new_client(t, which)
        way = client.host.run("ip", "route", "get", "2001:db8:99::1").stdout
        if " dev tun0 " not in way:
            raise Failure(f"IPv6 goes beside the tunnel: {way}")
        if v6:
            t.ping(client.host, "2001:db8:99::1")
        else:
            done = client.host.run("ping", "-n", "-c", "1", "-W", "5", "2001:db8:99::1", check=False)
            if "Destination unreachable" not in done.stdout:
                raise Failure(f"nobody says that there is no IPv6: {done.stdout}")
        t.ping(client.host, "10.8.0.1")
    return run


for which in ("2.6", "2.7", "own"):
    for v6 in (True, False):
        add(__name__, f"nothing-beside-the-tunnel.{which}.{'ipv6' if v6 else 'no-ipv6'}", nothing_beside(which, v6), own=True)


# ---- The only /64 ------------------------------------------------------------------------------------

LAN = "2001:db8:5:1::"


@case(clients=2, own=True)
def neighbours_find_a_client(t):
    """A host on the local network resolves a client's address, which is out of that network's prefix."""
    router, neighbour = t.net.server, t.net.clients[1]
    router.ip(f"link add lan0 type veth peer name lan0 netns {neighbour.namespace}", "link set lan0 up",
              f"addr add {LAN}1/64 dev lan0 nodad")
    router.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=1")
    neighbour.ip("link set lan0 up", f"addr add {LAN}99/64 dev lan0 nodad")
    before = router.run("ip", "-6", "route").stdout
    # As somebody else, too: what is left of the privileges is enough.
    server = serve(t, "ndp-proxy lan0", "user nobody")
    client = new_client(t, "2.6", "explicit-exit-notify 1")
    address = address_in(t, client, LAN)
    t.until_ping(neighbour, address)
    t.ping(client.host, f"{LAN}99")
    if "lladdr" not in neighbour.run("ip", "-6", "neigh", "show", address).stdout:
        raise Failure("it was not resolved on the link")
    # Another prefix on the same link.
    router.ip(f"addr add {SECOND}1/64 dev lan0 nodad", f"addr change {LAN}1/64 dev lan0 nodad preferred_lft 0 valid_lft 3600")
    neighbour.ip(f"addr add {SECOND}99/64 dev lan0 nodad")
    second = address_in(t, client, SECOND)
    t.until_ping(neighbour, second)
    # The kernel forgets its entries with the link.
    router.ip("link set lan0 down", "link set lan0 up", f"addr replace {SECOND}1/64 dev lan0 nodad", f"addr replace {LAN}1/64 dev lan0 nodad")
    t.until_ping(neighbour, address_in(t, client, LAN if LAN in str(addresses(client.host)) else SECOND))
    entries = lambda: router.run("ip", "-6", "neigh", "show", "proxy").stdout.strip()
    if second not in entries():
        raise Failure(f"entries: {entries()}")
    client.stop()
    deadline = time.monotonic() + 20
    while entries():
        if time.monotonic() > deadline:
            raise Failure(f"entries stay: {entries()}")
        time.sleep(0.1)
    client.start()
    client.wait_up()
    server.process.stop()
    if entries():
        raise Failure(f"entries stay: {entries()}")
    router.ip(f"addr del {SECOND}1/64 dev lan0", f"addr replace {LAN}1/64 dev lan0 nodad")
    after = router.run("ip", "-6", "route").stdout
    if sorted(line.split(" expires")[0] for line in after.splitlines()) != sorted(before.splitlines()):
        raise Failure(f"routes:\n{after}\nbefore:\n{before}")
    if router.run("sysctl", "-n", "net.ipv6.conf.lan0.proxy_ndp").stdout.strip() != "0":
        raise Failure("proxy_ndp stays on")
