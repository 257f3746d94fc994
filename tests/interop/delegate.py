"""Prefixes for whole networks: a host behind a client reaches the server's network and is reached."""

import re
import time

from lib.case import add
from lib.process import Failure
from prefix import new_client
from reload import edit, reload

POOL = "fd00:d::/48"
SITE = "fd00:1a::"

SCRIPT = """#!/bin/sh
net=${OPENVPN_delegated_ipv6%/*}
[ -z "$net" ] || ip -6 addr replace "${net}1/64" dev lan0 nodad
"""


def behind(t, which: str):
    """A client with a network behind it, and a host in there."""
    router, host = t.net.clients
    router.ip(f"link add lan0 type veth peer name lan0 netns {host.namespace}", "link set lan0 up")
    host.ip("link set lan0 up")
    for machine in (router, t.net.server):
        machine.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=1")
    if which == "own":
        return new_client(t, which, "delegate-ipv6-dev lan0")
    script = t.write("lan.sh", SCRIPT)
    script.chmod(0o755)
    return new_client(t, which, "script-security 2", f"up {script}")


def lan_prefix(t) -> str:
    """The /64 of the client's network, once it is there."""
    deadline = time.monotonic() + 20
    while True:
        found = re.search(r"inet6 (\S*)::1/64 ", t.net.clients[0].run("ip", "-6", "addr", "show", "dev", "lan0").stdout)
        if found:
            return found[1]
        if time.monotonic() > deadline:
            raise Failure("the network behind the client has no prefix")
        time.sleep(0.1)


def settle(t) -> str:
    """Puts the host behind the client into its prefix, as radvd would have it do, and tries both ways."""
    net = lan_prefix(t)
    host = t.net.clients[1]
    host.ip("addr flush dev lan0 scope global", f"addr add {net}::99/64 dev lan0 nodad", f"route replace default via {net}::1 dev lan0")
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


for which in ("own", "2.6", "2.7"):
    add(__name__, f"a-network-reaches-and-is-reached.{which}", reaches_and_is_reached(which), clients=2, own=True)
