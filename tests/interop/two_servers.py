"""Several servers, one network: `route-export` tells a routing daemon where each client is, so that a client that
loses its server keeps its addresses, and its connections, at the next one.

      lan1 ── server ──┐ home0, Babel ┌── second ── lan2        192.168.N.0/24, fd00:Na::/64
                 │     └──────────────┘      │
                 └─── wire ── client ── wire ┘                  10.8.0.77, fd00:10:8::77 at either
"""

import json
import sys

from client_host import Sixgate
from lib.case import ROOT, add
from lib.peers import PORT, Server, Wrap
from lib.process import Failure, until

V4 = "10.8.0.77"
V6 = "fd00:10:8::77"
BEHIND = "192.168.77.0/24"
PROTOCOL = 67
STEADY = ROOT / "tests" / "interop" / "lib" / "steady.py"

# What README recommends: a client that is here is preferred to what others say of it.
BIRD = """
router id 10.99.0.{number};
log stderr all;
filter clients {{
    if krt_source = {protocol} then {{ preference = 200; accept; }}
    reject;
}}
protocol device {{ scan time 1; }}
protocol direct {{ ipv4; ipv6; interface "lan0"; }}
protocol kernel kernel4 {{ learn; scan time 1; ipv4 {{ import filter clients; export where source = RTS_BABEL; }}; }}
protocol kernel kernel6 {{ learn; scan time 1; ipv6 {{ import filter clients; export where source = RTS_BABEL; }}; }}
protocol babel {{
    ipv4 {{ import all; export all; }};
    ipv6 {{ import all; export all; }};
    interface "home0" {{ type wired; hello interval 1 s; update interval 2 s; }};
}}
"""


class Router:
    """A router with a server, a local network with one host in it, and a routing daemon."""

    def __init__(self, t, number: int, machine, host):
        self.t, self.number, self.machine, self.host = t, number, machine, host
        lan4, lan6 = f"192.168.{number}.", f"fd00:{number}a::"
        self.address = f"{lan6}99"
        machine.ip(f"link add lan0 type veth peer name lan0 netns {host.namespace}", "link set lan0 up",
                   f"addr add {lan4}1/24 dev lan0", f"addr add {lan6}1/64 dev lan0 nodad")
        host.ip("link set lan0 up", f"addr add {lan4}99/24 dev lan0", f"addr add {self.address}/64 dev lan0 nodad",
                f"route add default via {lan4}1", f"route add default via {lan6}1")
        machine.run("sysctl", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                    "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
        self.server: Server | None = None

    def start_routing(self) -> None:
        config = self.t.write(f"bird{self.number}.conf", BIRD.format(number=self.number, protocol=PROTOCOL))
        socket = self.t.dir / f"bird{self.number}.ctl"
        self.t.process(self.machine.inside("bird", "-f", "-c", config, "-s", socket), f"bird{self.number}")

    def serve(self) -> None:
        folder = self.t.dir / "ccd"
        lines = ["route-export", f"client-config-dir {folder}", "explicit-exit-notify 2", *(
            f'push "{option}"' for number in (1, 2)
            for option in (f"route 192.168.{number}.0 255.255.255.0", f"route-ipv6 fd00:{number}a::/64")), "keepalive 1 4"]
        self.server = Server(self.t, Wrap("tls-crypt", self.t.shared), lines, host=self.machine, name=f"server{self.number}")
        self.server.start()

    def routes(self, protocol) -> set[str]:
        """Where the kernel's routes of this protocol lead."""
        found = set()
        for family in ("-4", "-6"):
            done = self.machine.run("ip", "-j", family, "route", "show", "proto", protocol)
            found |= {route["dst"] for route in json.loads(done.stdout or "[]")}
        return found


def pair(t):
    client, second, *hosts = t.net.clients
    folder = t.dir / "ccd"
    folder.mkdir()
    # `route`, as `client set` writes it, is for other clients; the kernel's own route comes and goes.
    (folder / "client1").write_text(f"ifconfig-push {V4} 255.255.255.0\nifconfig-ipv6-push {V6}/64\n"
                                    "iroute 192.168.77.0 255.255.255.0\nroute 192.168.77.0 255.255.255.0\n")
    routers = [Router(t, 1, t.net.server, hosts[0]), Router(t, 2, second, hosts[1])]
    t.net.server.ip(f"link add home0 type veth peer name home0 netns {second.namespace}")
    for router in routers:
        router.machine.ip("link set home0 up", f"addr add 10.99.0.{router.number}/24 dev home0")
        router.start_routing()
        router.serve()
    client.ip("addr add 192.168.77.1/32 dev lo")
    return client, routers


EVERYTHING = {V4, V6, BEHIND}


def at(t, here: Router, there: Router) -> None:
    """The client is at one of them, and each kernel and each host knows it."""
    until(lambda: here.routes(PROTOCOL) == EVERYTHING, f"the server has routes to {here.routes(PROTOCOL)}", 40)
    until(lambda: not there.routes(PROTOCOL), f"stale routes at the other server: {there.routes(PROTOCOL)}")
    until(lambda: EVERYTHING <= there.routes("bird"), f"the other router knows {there.routes('bird')}")
    until(lambda: not EVERYTHING & here.routes("bird"), f"the router believes others: {here.routes('bird')}")
    for router in (here, there):
        for address in (V4, V6, "192.168.77.1"):
            t.until_ping(router.host, address)


def moves(which: str):
    def run(t):
        host, (one, two) = pair(t)
        lines = [f"remote {two.machine.v4} {PORT} udp4", "persist-tun", "connect-timeout 3", "verb 4"]
        if which == "own":
            client = Sixgate(t, host, "client1", Wrap("tls-crypt", t.shared), lines)
            client.start()
            client.wait_up()
        else:
            t.suite = "sid" if which == "2.7" else None
            client = t.client(*lines)
        at(t, one, two)
        echo = t.process(one.host.inside(sys.executable, STEADY, "echo", one.address, 7000), "echo")
        echo.expect("listening")
        talk = t.process(host.inside(sys.executable, STEADY, "talk", one.address, 7000), "talk")
        talk.expect("5 answers")
        if talk.expect(r"from (\S+)")[1] != V6:
            raise Failure("the connection has another address")
        # Killed: nobody says goodbye.
        mark = client.process.mark()
        one.server.process.kill()
        client.wait_up_again(mark, timeout=60)
        at(t, two, one)
        talk.expect(r"\d+ answers", timeout=60, after=talk.mark())
        # Back to the first one, as the second ends in an orderly way and takes its routes with it.
        one.serve()
        mark = client.process.mark()
        two.server.process.stop()
        client.wait_up_again(mark, timeout=60)
        two.serve()
        at(t, one, two)
        talk.expect(r"\d+ answers", timeout=60, after=talk.mark())
        # Gone for good: nobody has a route any more. It says no goodbye, and BIRD keeps what was withdrawn for a while
        # as unreachable: some 20 s.
        client.stop()
        until(lambda: not one.routes(PROTOCOL) and not EVERYTHING & two.routes("bird"), "routes to a client that is gone", 60)
        for router in (one, two):
            router.server.alive()
    return run


for which in ("own", "2.6", "2.7"):
    add(__name__, f"a-client-moves-and-keeps-its-addresses.{which}", moves(which), clients=4, own=True)
