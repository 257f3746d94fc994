"""Prefixes for whole networks: a host behind a client reaches the server's network and is reached."""

import re
import sys
import time

from lib.case import add
from lib.process import Failure, until
from prefix import STEADY, Line, new_client
from reload import edit, reload

POOL = "fd00:d::/48"
SITE = "fd00:1a::"

SCRIPT = """#!/bin/sh
net=${OPENVPN_delegated_ipv6%/*}
[ -z "$net" ] || ip -6 addr replace "${net}1/64" dev lan0 nodad
"""


def behind(t, which: str, *lines: str):
    """A client with a network behind it, and a host in there."""
    router, host = t.net.clients
    router.ip(f"link add lan0 type veth peer name lan0 netns {host.namespace}", "link set lan0 up")
    host.ip("link set lan0 up")
    for machine in (router, t.net.server):
        machine.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=1")
    if which == "own":
        return new_client(t, which, "delegate-ipv6-dev lan0", *lines)
    script = t.write("lan.sh", SCRIPT)
    script.chmod(0o755)
    return new_client(t, which, "script-security 2", f"up {script}", *lines)


def lan_prefix(t, start: str = "") -> str:
    """The /64 of the client's network, once it is there; `start` is how it begins."""
    deadline = time.monotonic() + 30
    while True:
        shown = t.net.clients[0].run("ip", "-6", "addr", "show", "dev", "lan0").stdout
        found = re.search(rf"inet6 ({start}\S*)::1/64 ", shown)
        if found:
            return found[1]
        if time.monotonic() > deadline:
            raise Failure("the network behind the client has no prefix")
        time.sleep(0.1)


def settle(t, start: str = "", keep: bool = False) -> str:
    """Puts the host behind the client into its prefix, as radvd would have it do, and tries both ways; `keep`: its
    old address stays for the connections that use it."""
    net = lan_prefix(t, start)
    host = t.net.clients[1]
    if not keep:
        host.ip("addr flush dev lan0 scope global")
    host.ip(f"addr add {net}::99/64 dev lan0 nodad", f"route replace default via {net}::1 dev lan0")
    t.until_ping(host, f"{SITE}1")
    t.ping(t.net.server, f"{net}::99")
    return net


def reaches_and_is_reached(which: str):
    def run(t):
        t.net.server.ip(f"addr add {SITE}1/128 dev lo")
        folder = t.dir / "ccd"
        folder.mkdir()
        if which != "own":
            # A stock client does not say that it wants a prefix; its file says that there is a network.
            (folder / "client1").write_text("iroute 192.168.50.0 255.255.255.0\nroute 192.168.50.0 255.255.255.0\n")
        file = t.dir / "delegated"
        server = t.server(f"client-config-dir {folder}", f"delegate-ipv6 {POOL} 60 {file}", f'push "route-ipv6 {SITE}/64"',
                          "explicit-exit-notify 1")
        client = behind(t, which)
        first = settle(t)
        if not first.startswith("fd00:d:0:") or file.read_text().count("client1,fd00:d:0:") != 1:
            raise Failure(f"{first} and {file.read_text()}")
        # Nothing in the rest of the prefix goes round in circles.
        done = t.net.clients[1].run("ping", "-n", "-c", 1, "-W", 5, f"{first[:-1]}f::1", check=False)
        if "nreachable" not in done.stdout:
            raise Failure(f"the rest of the prefix: {done.stdout}")
        # A new start of the server.
        mark = client.process.mark()
        server.process.stop()
        server.start()
        client.wait_up_again(mark)
        if settle(t) != first:
            raise Failure("another prefix after a new start")
        # Another prefix: the part keeps its number.
        edit(server, POOL, "fd00:e::/48")
        mark = client.process.mark()
        reload(server, "everything is closed and opened again")
        client.wait_up_again(mark)
        t.net.clients[0].run("sh", "-c", f"ip -6 addr del {first}::1/64 dev lan0 || true")
        if settle(t) != first.replace("fd00:d:", "fd00:e:"):
            raise Failure("the part has another number")
        server.alive()
        client.stop()
        if which == "own" and "fd00:" in t.net.clients[0].run("ip", "-6", "addr", "show", "dev", "lan0").stdout:
            raise Failure("the address stays")
    return run


WORLD = "2001:db8:99::1"
FIRST = "2001:db8:a::"
SECOND = "2001:db8:b::"


def follows_the_line(which: str):
    """The network behind the client has a part of the line's prefix, before and after a new start of the server and a
    change of the prefix; connections that use the old one go on while it is valid."""
    def run(t):
        line = Line(t.net.server)
        t.net.server.ip(f"addr add {SITE}1/128 dev lo")
        folder = t.dir / "ccd"
        folder.mkdir()
        if which != "own":
            (folder / "client1").write_text("iroute 192.168.50.0 255.255.255.0\n")
        server = t.server(f"client-config-dir {folder}", "server-ipv6 auto fd00:10:8::/64",
                          f"delegate-ipv6 auto 60 {t.dir / 'delegated'}", f'push "route-ipv6 {SITE}/64"', "explicit-exit-notify 1",
                          v6=False)
        client = behind(t, which, "explicit-exit-notify 1")
        private = settle(t)
        if not private.startswith("fd"):
            raise Failure(f"{private} without a line")
        # An address with the length of what is there and a route to its first /64, as netifd has it.
        line.give(FIRST, 56)
        settle(t, "2001:db8:a:10")
        # A new start of the server: the device is another one, and is given its prefix again.
        mark = client.process.mark()
        server.process.stop()
        server.start()
        line.give(FIRST, 56)
        client.wait_up_again(mark)
        settle(t, "2001:db8:a:10")
        if "keep their tunnel: 1" not in reload(server):
            raise Failure("a configuration that is the same costs a connection")
        host = t.net.clients[1]
        if which == "own":
            # Where the server pushes no route to: the world, which the host has its address for.
            t.net.server.ip(f"addr add {WORLD}/128 dev lo")
            t.ping(host, WORLD)
            if " dev tun0 " in t.net.clients[0].run("ip", "-6", "route", "get", WORLD, check=False).stdout:
                raise Failure("the client itself goes through the tunnel")
        echo = t.process(t.net.server.inside(sys.executable, STEADY, "echo", f"{SITE}1", 7000), "echo")
        echo.expect("listening")
        talk = t.process(host.inside(sys.executable, STEADY, "talk", f"{SITE}1", 7000), "talk")
        talk.expect("5 answers")
        arrivals = server.process.count("connected as peer")
        # Another prefix, with room for three networks.
        line.give(SECOND, 58)
        line.deprecate(FIRST, bits=56)
        settle(t, "2001:db8:b:10", keep=True)
        talk.expect(r"\d+ answers", timeout=40, after=talk.mark())
        t.ping(t.net.server, "2001:db8:a:10::99")
        if (which == "own") != (server.process.count("connected as peer") == arrivals):
            raise Failure("new connections of the client")
        # The old one is gone for good: nothing leads there any more.
        line.withdraw(FIRST, 56)
        until(lambda: "2001:db8:a:" not in t.net.server.run("ip", "-6", "route").stdout, "a stale route")
        t.ping(t.net.server, "2001:db8:b:10::99")
        server.alive()
        mark = server.process.mark()
        client.stop()
        if which == "own" and re.search("2001:db8:|fd", host_addresses(t)):
            raise Failure(f"addresses stay: {host_addresses(t)}")
        server.process.expect("client down: 'client1'", after=mark)
        until(lambda: "2001:db8:b:10::/60" not in t.net.server.run("ip", "-6", "route").stdout, "a route without its client")
    return run


def host_addresses(t) -> str:
    return t.net.clients[0].run("ip", "-6", "addr", "show", "dev", "lan0", "scope", "global").stdout


for which in ("own", "2.6", "2.7"):
    add(__name__, f"a-network-follows-the-line.{which}", follows_the_line(which), clients=2, own=True)
    add(__name__, f"a-network-reaches-and-is-reached.{which}", reaches_and_is_reached(which), clients=2, own=True)
