"""sixgate as the client of a stock server: what it does to its host, and how it gets out of trouble."""

import difflib
import re
import signal
import sys
import time
from pathlib import Path

from lib.case import SIXGATE, Ping, add, case
from lib.net import V6
from lib.peers import Client, Wrap
from lib.process import Failure, until

HANDSHAKE = r"Control Channel: TLSv1\.[23]"


class Sixgate(Client):
    """A sixgate client with a configuration written for OpenVPN."""

    UP = r"the tunnel to .* is up"

    def start(self) -> None:
        self.process = self.case.process(self.host.inside(SIXGATE, "run", self.config), self.name)

    def ended(self, timeout: float = 10) -> int:
        """Its exit status; a panic is a failure."""
        status = self.process.wait(timeout)
        if self.process.seen("panicked at"):
            raise Failure("the client panicked")
        return status


def client(t, *lines: str, wrap: str = "tls-crypt", up: bool = True, **options) -> Sixgate:
    peer = Sixgate(t, t.net.clients[0], "client1", Wrap(wrap, t.shared), ("verb 4", *lines), **options)
    peer.start()
    if up:
        peer.wait_up()
    return peer


def network(host) -> list[str]:
    """Everything about addresses and routes, without what changes by itself."""
    def lines() -> list[str]:
        found = []
        for arguments in (("addr",), ("route", "show", "table", "all"), ("-6", "route", "show", "table", "all"), ("rule",), ("-6", "rule")):
            found += host.run("ip", *arguments).stdout.splitlines()
        # Link-local addresses come late, as they are checked for duplicates, and so may the wire's other end.
        found = [line for line in found if not re.search("fe80:|Peer netns", line)]
        passing = r"(valid_lft|preferred_lft|expires|users|age|state) \S+|NO-CARRIER,|,LOWER_UP"
        return [line for line in (re.sub(passing, "", line).strip() for line in found) if line]

    def is_plugged_in(found: list[str]) -> bool:
        """Whether the kernel has noticed, and taken the address that waits for it."""
        own = [line.split()[1].split("/")[0] for line in found if line.startswith(f"inet6 {V6}")]
        return not any(re.search("dev eth0 .*linkdown", line) for line in found) and all(
            any(line.startswith(f"local {address} ") for line in found) for address in own)

    return until(lambda: found if is_plugged_in(found := lines()) else None, "the wire is not plugged in")


def unchanged(t, before: list[str]) -> None:
    after = network(t.net.clients[0])
    if after != before:
        raise Failure("the host is not as it was:\n" + "\n".join(difflib.unified_diff(before, after, "before", "after", n=0, lineterm="")))


def stock(function, name: str, **options) -> None:
    """Registers a case with a stock server."""
    def run(t):
        t.stock = True
        function(t)
    add("client-host", name, run, own=True, **options)


def redirect(transport: int, persist: bool):
    def run(t):
        host = t.net.clients[0]
        # Somewhere to go by default: another machine on the wire, which drops it all.
        host.ip("route add default via 203.0.113.77", "route add default via 2001:db8:6::77 metric 1024")
        before = network(host)
        server = t.server('push "redirect-gateway def1 ipv6"', 'push "route-gateway 10.8.0.1"', "keepalive 1 4")
        peer = client(t, transport=transport, *(["persist-tun"] if persist else []))
        t.ping_server(peer)
        for far in ("198.51.100.1", "2001:db8:99::1"):
            if " dev tun0 " not in host.run("ip", "route", "get", far).stdout:
                raise Failure(f"{far} does not go into the tunnel")
        outer = t.net.server.v4 if transport == 4 else t.net.server.v6
        if " dev eth0 " not in host.run("ip", "route", "get", outer).stdout:
            raise Failure("the server's address goes into the tunnel")
        mark = peer.process.mark()
        server.process.kill()
        peer.process.expect("ping-restart", timeout=15, after=mark)
        time.sleep(0.5)
        inside = " dev tun0 " in host.run("ip", "route", "get", "198.51.100.1").stdout
        if inside != persist:
            raise Failure(f"while the server is away, traffic goes {'into' if inside else 'around'} the tunnel")
        server.start()
        peer.wait_up_again(mark)
        t.ping_server(peer)
        peer.stop()
        unchanged(t, before)
    return run


for transport in (4, 6):
    stock(redirect(transport, transport == 6), f"redirect-gateway-and-back.udp{transport}")


def ways_to_end(t):
    """However it ends, the host is as before."""
    before = network(t.net.clients[0])
    t.server('push "redirect-gateway def1 ipv6"', 'push "route-gateway 10.8.0.1"')
    for number in (signal.SIGTERM, signal.SIGINT):
        peer = client(t)
        peer.process.send(number)
        if peer.ended() != 0:
            raise Failure("a requested end is no failure")
        unchanged(t, before)
    peer = client(t, "inactive 3 1000000000")
    if peer.ended(15) != 0:
        raise Failure("a configured end is no failure")
    unchanged(t, before)


stock(ways_to_end, "ways-to-end")


def first_remote_is_dead(t):
    t.server()
    peer = client(t, up=False)
    peer.process.kill()
    text = peer.config.read_text()
    dead = "remote 203.0.113.99 1194 udp4\nremote nowhere.invalid 1194\nconnect-timeout 2\n"
    peer.config.write_text(dead + text)
    peer.start()
    peer.wait_up(timeout=30)
    t.ping_server(peer)


stock(first_remote_is_dead, "first-remote-is-dead")


def connection_blocks(t):
    t.server(wrap="tls-crypt")
    peer = client(t, wrap="none", up=False)
    peer.process.kill()
    text = re.sub(r"remote .*\n", "", peer.config.read_text())
    blocks = f"""
<connection>
remote {t.net.server.v4} 1195 udp4
connect-timeout 2
</connection>
<connection>
remote {t.net.server.v6} 1194 udp6
tls-crypt {t.shared.static}
explicit-exit-notify 1
</connection>
"""
    peer.config.write_text(text + blocks)
    peer.start()
    peer.wait_up(timeout=30)
    t.ping_server(peer)


stock(connection_blocks, "connection-blocks")


def server_killed_and_started_again(t):
    server = t.server("keepalive 1 4")
    peer = client(t)
    t.ping_server(peer)
    mark = peer.process.mark()
    server.process.kill()
    server.start()
    peer.wait_up_again(mark)
    t.ping_server(peer)
    t.iperf(peer.host, t.net.server, "fd00:10:8::1", mebibytes=2)


stock(server_killed_and_started_again, "server-killed-and-started-again")


def topology(name: str):
    def run(t):
        before = network(t.net.clients[0])
        t.server(f"topology {name}")
        peer = client(t)
        t.ping(peer.host, "10.8.0.1")
        t.ping(peer.host, "fd00:10:8::1")
        peer.stop()
        unchanged(t, before)
    return run


for name in ("net30", "p2p", "subnet"):
    stock(topology(name), f"topology-{name}")


def login(t, verdict: int, *lines: str):
    """A server that checks user name and password by a script."""
    script = t.write("verify.sh", f"#!/bin/sh\nexit {verdict}\n")
    script.chmod(0o755)
    t.write("login", "someone\nsecret pass\n")
    return t.server("script-security 3", f"auth-user-pass-verify {script} via-env", *lines)


def refused(t):
    login(t, 1)
    peer = client(t, f"auth-user-pass {t.dir}/login", up=False)
    peer.process.expect("the server refused us", dies=True)
    if peer.ended() == 0:
        raise Failure("a refusal is a failure")


def refused_again_and_again(t):
    login(t, 1)
    peer = client(t, f"auth-user-pass {t.dir}/login", "auth-retry nointeract", up=False)
    peer.process.expect(r"(?s)the server refused us.*the server refused us", timeout=40)


def token_serves_renegotiations(t):
    server = login(t, 0, "auth-gen-token 3600", "hand-window 3", "reneg-sec 6")
    peer = client(t, f"auth-user-pass {t.dir}/login", "reneg-sec 0")
    server.process.expect(r"(?s)auth-gen-token.*Username/auth-token authentication succeeded", timeout=40)
    t.ping_server(peer)


stock(refused, "refused")
stock(refused_again_and_again, "refused-again-and-again")
stock(token_serves_renegotiations, "token-serves-renegotiations")


ANSWER = Path(__file__).resolve().parent / "lib" / "answer.py"


def asked(lines: list[str], answers: list[str], password: str):
    """User name and password from the terminal, the latter never shown."""
    def run(t):
        script = t.write("verify.sh", f"#!/bin/sh\ntest \"$username\" = someone && test \"$password\" = '{password}'\n")
        script.chmod(0o755)
        t.write("name", "someone\n")
        t.server("script-security 3", f"auth-user-pass-verify {script} via-env")
        peer = client(t, *[line.format(t=t) for line in lines], up=False)
        # Without a terminal there is nobody to ask.
        peer.process.expect("no terminal to ask", dies=True)
        peer.process = t.process(peer.host.inside(sys.executable, ANSWER, *answers, "--", SIXGATE, "run", peer.config), "client1")
        peer.wait_up()
        t.ping_server(peer)
        if "se cret" in peer.process.text().split("--", 1)[1].split("\n", 1)[1]:
            raise Failure("the password is shown")
        peer.process.stop()
    return run


LOGIN = ["User name: ", "someone", "Password: ", "se cret"]
stock(asked(["auth-user-pass"], LOGIN, "se cret"), "asked.name-and-password")
stock(asked(["auth-user-pass {t.dir}/name"], LOGIN[2:], "se cret"), "asked.password")
# The server's OpenVPN hands both to its script as they came.
stock(asked(["auth-user-pass", 'static-challenge "Your PIN" 1'], [*LOGIN, "Your PIN: ", "1234"], "SCRV1:c2UgY3JldA==:MTIzNA=="), "asked.static-challenge")
stock(asked(["auth-user-pass", 'static-challenge "Your PIN" 0 concat'], [*LOGIN, "Your PIN: ", "1234"], "se cret1234"), "asked.static-challenge-concat")


def goodbye_is_heard(t):
    server = t.server()
    peer = client(t, "explicit-exit-notify 2")
    mark = server.process.mark()
    peer.stop()
    server.process.expect("exit message received", timeout=5, after=mark)


stock(goodbye_is_heard, "goodbye-is-heard")


def renegotiation(server_lines: list[str], client_lines: list[str]):
    def run(t):
        server = t.server(*server_lines)
        peer = client(t, *client_lines)
        Ping(t, peer.host, "fd00:10:8::1", count=300).finish()
        if server.process.count(HANDSHAKE) < 2:
            raise Failure("no renegotiation happened")
        if peer.process.count(peer.UP) != 1:
            raise Failure("the client started over")
    return run


stock(renegotiation(["reneg-sec 3"], ["reneg-sec 0"]), "renegotiation-by-server")
stock(renegotiation(["reneg-sec 0"], ["reneg-sec 3"]), "renegotiation-by-client")


def moves(transport: int):
    def run(t):
        t.server('push "redirect-gateway def1 ipv6"', 'push "route-gateway 10.8.0.1"')
        peer = client(t, transport=transport)
        t.ping_server(peer)
        peer.host.move(31)
        t.until_ping(peer.host, "10.8.0.1", timeout=8)
        t.ping_server(peer)
        t.ping(t.net.server, peer.v6)
        if peer.process.count(peer.UP) != 1:
            raise Failure("the client started over")
    return run


for transport in (4, 6):
    stock(moves(transport), f"moves-to-another-address.udp{transport}")


def half_a_server(t):
    """A server of one IP version is to have all traffic: the other version does not go beside the tunnel."""
    host = t.net.clients[0]
    t.server('push "redirect-gateway def1 ipv6"', 'push "route-gateway 10.8.0.1"', v6=False)
    peer = client(t)
    t.ping(host, "10.8.0.1")
    t.ping(host, t.net.server.v6)
    peer.process.expect("the server gives no IPv6 address: IPv6 traffic of this host is answered")
    if " dev tun0 " not in host.run("ip", "route", "get", "2001:db8:99::1").stdout:
        raise Failure("IPv6 goes beside the tunnel")


def blocked_ipv6(t):
    host = t.net.clients[0]
    t.server('push "redirect-gateway def1 ipv6"', 'push "route-gateway 10.8.0.1"', 'push "block-ipv6"', v6=False)
    peer = client(t)
    t.ping(host, "10.8.0.1")
    done = host.run("ping", "-n", "-c", "1", "-W", "3", "2001:db8:99::1", check=False)
    if "Destination unreachable" not in done.stdout:
        raise Failure(f"IPv6 is not answered: {done.stdout}")
    if peer.process.seen("panicked"):
        raise Failure("the client panicked")


stock(half_a_server, "half-a-server")
stock(blocked_ipv6, "blocked-ipv6")


def local_options(t):
    """Routes of the file, and filters on what the server pushes."""
    host = t.net.clients[0]
    before = network(host)
    t.server('push "route 10.55.0.0 255.255.0.0"', 'push "route-ipv6 fd55::/48"', 'push "redirect-gateway def1"',
             'push "dhcp-option DNS 10.8.0.1"')
    peer = client(t, "route 10.66.0.0 255.255.0.0 vpn_gateway 9", "route-ipv6 fd66::/48", "route 10.67.0.0 255.255.0.0 net_gateway",
                  'pull-filter ignore "redirect-gateway"', 'pull-filter ignore "route-ipv6 "', "route-metric 77")
    routes = host.run("ip", "route").stdout + host.run("ip", "-6", "route").stdout
    for wanted in (r"10\.55\.0\.0/16 dev tun0 .*metric 77", r"10\.66\.0\.0/16 dev tun0 .*metric 9", r"fd66::/48 dev tun0"):
        if not re.search(wanted, routes):
            raise Failure(f"no {wanted} in\n{routes}")
    for unwanted in ("fd55::", "0.0.0.0/1"):
        if unwanted in routes:
            raise Failure(f"{unwanted} was to be filtered out:\n{routes}")
    peer.process.expect("DNS 10.8.0.1")
    peer.process.expect("DNS settings are not applied")
    peer.stop()
    unchanged(t, before)


stock(local_options, "local-options")


# Says one thing to a management interface and prints the answer.
TELL = """
import socket, sys
with socket.create_connection(("127.0.0.1", 7505), timeout=5) as link:
    lines = link.makefile("rw")
    print(sys.argv[1], file=lines, flush=True)
    while not (line := lines.readline()).startswith(("SUCCESS", "ERROR")):
        pass
    print(line)
"""


def changed_by_push_update(t):
    """OpenVPN 2.7 changes what it has pushed; the tunnel goes on."""
    host = t.net.clients[0]
    t.suite = "sid"
    before = network(host)
    t.server("management 127.0.0.1 7505", 'push "route 10.55.0.0 255.255.0.0"')
    peer = client(t)
    ping = Ping(t, host, "fd00:10:8::1", count=60, interval=0.1)

    def update(text: str) -> None:
        mark = peer.process.mark()
        answer = t.net.server.run(sys.executable, "-c", TELL, f'push-update-broad "{text}"').stdout
        if "SUCCESS" not in answer:
            raise Failure(f"the server does not send the update: {answer}")
        peer.process.expect("has changed the tunnel's settings", timeout=5, after=mark)
        time.sleep(0.2)

    def routes() -> str:
        return host.run("ip", "route").stdout + host.run("ip", "-6", "route").stdout

    update("route 10.66.0.0 255.255.0.0, route-ipv6 fd66::/48, dns server 1 address fd00:10:8::1, tun-mtu 1400")
    found = routes()
    if "10.55.0.0/16" in found or "10.66.0.0/16 dev tun0" not in found or "fd66::/48 dev tun0" not in found:
        raise Failure(f"routes are not replaced:\n{found}")
    if "mtu 1400" not in host.run("ip", "link", "show", "tun0").stdout:
        raise Failure("the MTU is not changed")
    update("-route, -route-ipv6, -?dns, -tun-mtu, ?redirect-gateway def1")
    found = routes()
    if "10.66.0.0" in found or "fd66::" in found or "0.0.0.0/1 dev tun0" not in found:
        raise Failure(f"routes are not removed:\n{found}")
    ping.finish()
    if peer.process.count(peer.UP) != 1:
        raise Failure("the client started over")
    mark = peer.process.mark()
    t.net.server.run(sys.executable, "-c", TELL, 'push-update-broad "ifconfig"')
    time.sleep(0.5)
    peer.stop()
    unchanged(t, before)


stock(changed_by_push_update, "changed-by-push-update")


def bypass_dns(t):
    """The host asks its own name servers as before, while everything else goes into the tunnel."""
    host = t.net.clients[0]
    host.ip("route add default via 203.0.113.77", "route add default via 2001:db8:6::77 metric 1024")
    before = network(host)
    servers = ("198.51.100.53", "2001:db8:53::53")
    # Each process has mounts of its own in a namespace.
    resolv = t.write("resolv.conf", "".join(f"nameserver {server}\n" for server in servers))
    with_resolv = ("sh", "-ec", 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"', "sh", resolv)
    for flag, device in (("bypass-dns", "eth0"), ("", "tun0")):
        server = t.server(f'push "redirect-gateway def1 ipv6 {flag}"', 'push "route-gateway 10.8.0.1"')
        peer = Sixgate(t, host, "client1", Wrap("tls-crypt", t.shared), ("verb 4",))
        peer.process = t.process(host.inside(*with_resolv, SIXGATE, "run", peer.config), "client1")
        peer.wait_up()
        for far, wanted in ((servers[0], device), (servers[1], device), ("198.51.100.1", "tun0"), ("2001:db8:53::1", "tun0")):
            way = host.run("ip", "route", "get", far).stdout
            if f" dev {wanted} " not in way:
                raise Failure(f"{far} is not reached by {wanted} with '{flag}': {way}")
        peer.stop()
        unchanged(t, before)
        server.process.stop()


stock(bypass_dns, "bypass-dns")
