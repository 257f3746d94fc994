"""sixgate as a client, where things do not go as planned: the host is as before, the way to the server stays open."""

import re
import shutil
import signal
import sys
import time
from pathlib import Path

from client_host import client, network, unchanged
from lib.case import add
from lib.process import Failure

ASK = Path(__file__).resolve().parent / "lib" / "ask.py"
EVERYTHING = ('push "redirect-gateway def1 ipv6"', 'push "route-gateway 10.8.0.1"')


def stock(function, name: str) -> None:
    """Registers a case with a stock server."""
    def run(t):
        t.stock = True
        function(t)
    add("client-role", name, run, own=True)


def server_says_halt(t):
    """The server sends a client away that was up."""
    before = network(t.net.clients[0])
    path = t.dir / "manage"
    t.server(*EVERYTHING, f"management {path} unix")
    peer = client(t)
    t.net.server.run(sys.executable, ASK, path, "unix", "client-kill 0 HALT", timeout=20)
    if peer.ended() == 0:
        raise Failure("being sent away is a failure")
    unchanged(t, before)


def server_is_gone_for_good(t):
    """The server says goodbye and does not come back."""
    before = network(t.net.clients[0])
    server = t.server(*EVERYTHING, "explicit-exit-notify 2")
    peer = client(t, "connect-retry-max 1", "connect-timeout 2", "connect-retry 1 1")
    server.process.stop()
    if peer.ended(20) == 0:
        raise Failure("giving up is a failure")
    unchanged(t, before)


def read_again_and_stopped(t):
    before = network(t.net.clients[0])
    t.server(*EVERYTHING)
    peer = client(t)
    mark = peer.process.mark()
    peer.process.send(signal.SIGHUP)
    peer.wait_up_again(mark)
    t.ping_server(peer)
    peer.stop()
    unchanged(t, before)


def behind_a_router(t, far: str, proto: str, *lines: str):
    """The client of a server that is reached by a router, which is the server's own host."""
    server = t.server(*lines, f"local {far}", start=False)
    server.config.write_text(re.sub(r"(?m)^proto .*$", f"proto {proto}", server.config.read_text()))
    server.start()
    peer = client(t, up=False)
    peer.process.kill()
    peer.config.write_text(re.sub(r"(?m)^remote .*$", f"remote {far} 1194 {proto}", peer.config.read_text()))
    peer.start()
    peer.wait_up()
    return peer


def route_over_the_server(t):
    """A pushed IPv6 network that has the server's own address in it."""
    host, far = t.net.clients[0], "2001:db8:99::9"
    t.net.server.ip(f"addr add {far}/128 dev eth0 nodad")
    host.ip(f"route add default via {t.net.server.v6}")
    before = network(host)
    peer = behind_a_router(t, far, "udp6", 'push "route-ipv6 2001:db8:99::/64"')
    t.ping_server(peer)
    if " dev eth0 " not in host.run("ip", "route", "get", far).stdout:
        raise Failure("the server's address goes into the tunnel")
    if " dev tun0 " not in host.run("ip", "route", "get", "2001:db8:99::77").stdout:
        raise Failure("the pushed network goes beside the tunnel")
    peer.stop()
    unchanged(t, before)


def default_route_moves(t):
    """Another router leads to the server while everything goes through the tunnel."""
    host, far = t.net.clients[0], "198.51.100.9"
    t.net.server.ip(f"addr add {far}/32 dev eth0", "addr add 203.0.113.3/24 dev eth0")
    host.ip(f"route add default via {t.net.server.v4}")
    peer = behind_a_router(t, far, "udp4", *EVERYTHING)
    t.ping_server(peer)
    if f" via {t.net.server.v4} " not in host.run("ip", "route", "get", far).stdout:
        raise Failure("no way around the tunnel to the server")
    host.ip("route replace default via 203.0.113.3")
    deadline = time.monotonic() + 10
    while " via 203.0.113.3 " not in host.run("ip", "route", "get", far).stdout:
        if time.monotonic() > deadline:
            raise Failure("the way to the server does not follow:\n" + host.run("ip", "route").stdout)
        time.sleep(0.2)
    t.ping_server(peer)
    peer.stop()
    left = [line.split(" dev ")[0] for line in host.run("ip", "route").stdout.splitlines()]
    if left != ["default via 203.0.113.3", "203.0.113.0/24"]:
        raise Failure(f"the host is not as it was: {left}")


def name_with_new_addresses(t):
    """What a name leads to is asked again at every attempt, and is of either family."""
    host = t.net.clients[0]
    # What `ip netns exec` puts in the place of /etc/hosts.
    folder = Path("/etc/netns") / host.namespace
    folder.mkdir(parents=True)
    try:
        hosts = folder / "hosts"
        hosts.write_text("203.0.113.99 vpn.test\n")
        server = t.server("keepalive 1 4")
        peer = client(t, "connect-timeout 2", "connect-retry 1 1", up=False)
        peer.process.kill()
        peer.config.write_text(re.sub(r"(?m)^remote .*$", "remote vpn.test 1194 udp", peer.config.read_text()))
        peer.start()
        peer.process.expect(r"connecting to 203\.0\.113\.99:1194")
        for address in (t.net.server.v4, t.net.server.v6):
            mark = peer.process.mark()
            hosts.write_text(f"{address} vpn.test\n")
            if address == t.net.server.v6:
                # The address that worked is tried once more before the name.
                server.process.kill()
                t.net.server.ip(f"addr del {t.net.server.v4}/24 dev eth0")
                server.start()
            peer.process.expect(rf"the tunnel to \[?{re.escape(address)}\]?:1194 is up", timeout=20, after=mark)
            t.ping_server(peer)
    finally:
        shutil.rmtree(folder)


stock(server_says_halt, "server-says-halt")
stock(server_is_gone_for_good, "server-is-gone-for-good")
stock(read_again_and_stopped, "read-again-and-stopped")
stock(route_over_the_server, "route-over-the-server")
stock(default_route_moves, "default-route-moves")
stock(name_with_new_addresses, "name-with-new-addresses")
