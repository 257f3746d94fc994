"""sixgate as a client, where things do not go as planned: the host is as before, the way to the server stays open."""

import difflib
import re
import shutil
import signal
import sys
import time
from pathlib import Path

from client_host import client, network, unchanged
from hooks import script
from lib.case import add
from lib.process import Failure, until

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


def refused_at_a_renegotiation(t):
    """The user is refused long after the tunnel came up."""
    before = network(t.net.clients[0])
    closed = t.dir / "closed"
    script = t.write("verify.sh", f"#!/bin/sh\ntest ! -e {closed}\n")
    script.chmod(0o755)
    t.write("login", "someone\nsecret\n")
    t.server(*EVERYTHING, "script-security 3", f"auth-user-pass-verify {script} via-env", "hand-window 3", "reneg-sec 6")
    peer = client(t, f"auth-user-pass {t.dir}/login", "reneg-sec 0")
    t.ping_server(peer)
    closed.touch()
    peer.process.expect("the server refused us", timeout=40, dies=True)
    if peer.ended() == 0:
        raise Failure("a refusal is a failure")
    unchanged(t, before)


def judged_by_a_script(t):
    """tls-verify has the last word on the server: at once, at the server's renegotiation, and when it hangs."""
    before = network(t.net.clients[0])
    verdict, logins = t.dir / "verdict", t.dir / "logins"

    def decide(text: str) -> None:
        """At once: half a verdict would be one, too."""
        t.write("next", text).rename(verdict)

    decide("exit 1")
    judge = script(t, "judge.sh", f'test "$1" = 1 || test "$2" = CN=server || exit 1\n. {verdict}')
    note = script(t, "login.sh", f"echo $username >>{logins}")
    t.write("login", "someone\nsecret\n")
    t.server(*EVERYTHING, "script-security 2", f"auth-user-pass-verify {note} via-file", "hand-window 20", "reneg-sec 10 10")
    peer = client(t, f"auth-user-pass {t.dir}/login", "reneg-sec 0", "script-security 2", f"tls-verify {judge}", "hand-window 6",
                  "connect-retry 1 1", up=False)
    refused = r"tls-verify refused the server's certificate \(depth 1, CN=.*\); trying again"
    peer.process.expect(refused)
    peer.process.expect(refused, after=peer.process.mark())
    mark = peer.process.mark()
    decide("test $1 = 1 || sleep 60")
    # Either comes at its time: the script's, or the handshake's, which began a moment before.
    peer.process.expect(r"tls-verify: still running after 6 s|tls-verify has not judged", timeout=20, after=mark)
    if logins.exists() or peer.process.seen(peer.UP):
        raise Failure("a server that was not judged good was told who we are")
    mark = peer.process.mark()
    decide("exit 0")
    peer.wait_up_again(mark)
    t.ping_server(peer)
    # The server has a new key made, which is judged good, and another one.
    until(lambda: logins.read_text().count("someone") >= 2, "the server does not renegotiate", timeout=30)
    t.ping_server(peer)
    mark = peer.process.mark()
    decide("exit $((1 - $1))")
    peer.process.expect(r"tls-verify refused the server's certificate \(depth 0, CN=server\)", timeout=30, after=mark)
    decide("exit 0")
    peer.wait_up_again(mark)
    t.ping_server(peer)
    peer.stop()
    unchanged(t, before)


def kernel_refuses_the_address(t):
    """A host without IPv6: alone it cannot be used, beside IPv4 it costs nothing."""
    host = t.net.clients[0]
    host.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    before = network(host)
    server = t.server(v4=False)
    peer = client(t, up=False)
    peer.process.expect(r"cannot add the address fd00:10:8::\S+: IPv6 is switched off there; set the sysctl", dies=True)
    if peer.ended() == 0:
        raise Failure("a tunnel without an address is a failure")
    unchanged(t, before)
    server.process.stop()
    t.server(*EVERYTHING)
    peer = client(t)
    if not peer.process.seen("going on with IPv4 alone"):
        raise Failure("not a word about IPv6")
    t.ping(host, "10.8.0.1")
    peer.stop()
    unchanged(t, before)


def kernel_refuses_a_route(t):
    """By a router that nobody can reach: that network stays away, the rest works."""
    host = t.net.clients[0]
    before = network(host)
    t.server(*EVERYTHING, 'push "route 10.77.0.0 255.255.0.0 198.51.100.99"', 'push "route 10.78.0.0 255.255.0.0"')
    peer = client(t, 'pull-filter ignore "redirect-gateway"')
    peer.process.expect("cannot add the route 10.77.0.0/16: Network is unreachable")
    t.ping_server(peer)
    if " dev tun0 " not in host.run("ip", "route", "get", "10.78.0.1").stdout:
        raise Failure("the other route is missing")
    peer.stop()
    unchanged(t, before)


def settled(host) -> list[str]:
    """The same whether somebody has the device open or not; its MTU is as the killed one left it."""
    lines = [re.sub(r" ?linkdown ?|mtu \d+", "", line) for line in network(host)]
    return [line for line in lines if not line.startswith("multicast")]


def killed(persistent: bool):
    """What a client that was killed left behind is mended by the next."""
    def run(t):
        host = t.net.clients[0]
        host.ip("route add default via 203.0.113.77", "route add default via 2001:db8:6::77 metric 1024")
        if persistent:
            # As a client would find it that was itself killed: up.
            host.ip("tuntap add dev tun0 mode tun", "link set tun0 up")
        before = settled(host)
        t.server(*EVERYTHING, "duplicate-cn")

        def connected():
            peer = client(t)
            # A device that was there takes packets once the kernel has noticed that somebody has it.
            until(lambda: "qdisc noop" not in host.run("ip", "link", "show", "dev", "tun0").stdout, "the device takes no packets")
            return peer

        first = connected()
        first.process.kill()
        left = host.run("ip", "route").stdout
        if f"{t.net.server.v4} " not in left or persistent != ("dev tun0" in left):
            raise Failure(f"the case is wrong about what is left:\n{left}")
        # The first one's way to the server leads nowhere any more.
        host.ip(f"route replace {t.net.server.v4} via 203.0.113.78 proto 66")
        second = connected()
        t.ping_server(second)
        if " via " in host.run("ip", "route", "get", t.net.server.v4).stdout:
            raise Failure("the server is still looked for where it was")
        second.process.kill()
        third = connected()
        t.ping_server(third)
        third.stop()
        if (after := settled(host)) != before:
            raise Failure("the host is not as it was:\n" + "\n".join(difflib.ndiff(before, after)))
    return run


def asked_to_end(t):
    """Whatever it is doing, a client ends when it is asked to, and in time."""
    host = t.net.clients[0]
    before = network(host)
    folder = Path("/etc/netns") / host.namespace
    folder.mkdir(parents=True)
    script = t.write("up.sh", "#!/bin/sh\ntouch $(dirname $0)/running\nsleep 60\n")
    script.chmod(0o755)
    running = t.dir / "running"

    def ends(what: str, peer, number: signal.Signals, within: float = 4):
        peer.process.send(number)
        if peer.ended(within) != 0:
            raise Failure(f"{what}: a requested end is no failure")
        unchanged(t, before)

    def elsewhere(remote: str, *lines: str):
        peer = client(t, *lines, up=False)
        peer.process.kill()
        peer.config.write_text(re.sub(r"(?m)^remote .*$", f"remote {remote}", peer.config.read_text()))
        peer.start()
        return peer

    try:
        # A name server that does not answer.
        (folder / "resolv.conf").write_text("nameserver 203.0.113.99\noptions timeout:30\n")
        for number in (signal.SIGTERM, signal.SIGINT):
            peer = elsewhere("203.0.113.99 1194 udp4")
            peer.process.expect("connecting to")
            ends("connecting", peer, number)
            peer = elsewhere("vpn.test 1194")
            peer.process.expect("running:")
            time.sleep(0.5)
            ends("looking a name up", peer, number)
            server = t.server(*EVERYTHING, "keepalive 1 3", "explicit-exit-notify 2")
            peer = client(t, "script-security 2", f"up {script}", "down /bin/true", up=False)
            until(running.exists, "the script does not run", timeout=20)
            # It may come to its end, within reason.
            ends("a script", peer, number, 9)
            peer.process.expect("up: still running at the end; ended", dies=True)
            running.unlink()
            peer = client(t, "connect-retry 60 60")
            mark = peer.process.mark()
            server.process.stop()
            peer.process.expect("trying again", after=mark)
            time.sleep(1)
            ends("waiting", peer, number)
    finally:
        shutil.rmtree(folder)


def impostors(t):
    """A certificate of the right authority that is not the server's, and a server of another name."""
    before = network(t.net.clients[0])
    folder = t.shared.authority.dir
    for identity, lines, why in (
        ((folder / "client2.key", folder / "client2.crt"), (), "certificate of 'client2' is for clients, not servers"),
        (None, ("verify-x509-name gateway name",), "'server'.*that verify-x509-name asks for"),
    ):
        server = t.server(identity=identity)
        peer = client(t, *lines, up=False)
        peer.process.expect(why)
        if peer.process.seen(peer.UP):
            raise Failure("it is taken for the server")
        peer.stop()
        unchanged(t, before)
        server.process.stop()


stock(refused_at_a_renegotiation, "refused-at-a-renegotiation")
stock(judged_by_a_script, "judged-by-a-script")
stock(kernel_refuses_the_address, "kernel-refuses-the-address")
stock(kernel_refuses_a_route, "kernel-refuses-a-route")
stock(killed(False), "killed")
stock(killed(True), "killed.persistent-device")
stock(asked_to_end, "asked-to-end")
stock(impostors, "impostors")
stock(server_says_halt, "server-says-halt")
stock(server_is_gone_for_good, "server-is-gone-for-good")
stock(read_again_and_stopped, "read-again-and-stopped")
stock(route_over_the_server, "route-over-the-server")
stock(default_route_moves, "default-route-moves")
stock(name_with_new_addresses, "name-with-new-addresses")
