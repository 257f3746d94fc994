"""SIGHUP: the server reads its configuration again, and clients that it does not touch never notice."""

import json
import re
import signal
import time

import client_host
from addresses import client_files, routes
from lib import pki
from lib.case import Ping, case
from lib.process import Failure, until
from manage import ask
from up import Up

IN_FORCE = "the new configuration is in force"


def edit(server, old: str, new: str) -> None:
    """Changes the server's configuration file."""
    text = server.config.read_text()
    if old not in text:
        raise Failure(f"{old!r} is not in {server.config}")
    server.config.write_text(text.replace(old, new))


def reload(server, expect: str = IN_FORCE) -> str:
    """Sends SIGHUP, waits for these words and returns what the log says from there."""
    mark = server.process.mark()
    server.process.send(signal.SIGHUP)
    server.process.expect(expect, after=mark)
    time.sleep(0.2)
    return server.process.text()[mark:]


@case(clients=2, own=True)
def a_running_ping_loses_nothing(t):
    files = client_files(t, client1="", client2="")
    server = t.server(files, "route 10.98.0.0 255.255.0.0", "max-clients 5")
    one, two = t.client(number=1), t.client(number=2, transport=6)
    pings = [Ping(t, one.host, "10.8.0.1"), Ping(t, t.net.server, one.v6)]
    (t.dir / "ccd" / "client2").write_text('push "route 10.77.0.0 255.255.0.0"\n')
    edit(server, "route 10.98.0.0", "route 10.99.0.0")
    edit(server, "max-clients 5", "max-clients 6")
    mark = two.process.mark()
    said = reload(server)
    if not re.search("keep their tunnel: 1; that have to connect again: 1", said):
        raise Failure(said)
    for ping in pings:
        ping.finish()
    two.wait_up_again(mark)
    if "10.77.0.0/16" not in routes(two.host):
        raise Failure(f"client2 was not pushed its route: {routes(two.host)}")
    kernel = routes(t.net.server)
    if "10.99.0.0/16" not in kernel or "10.98.0.0/16" in kernel:
        raise Failure(f"the server's routes are the old ones: {kernel}")
    for client in (one, two):
        t.ping_server(client)
    if one.process.count(one.UP) != 1:
        raise Failure("client1 started over")
    server.alive()


@case(clients=2, own=True)
def a_transfer_goes_on_while_others_are_shut_out(t):
    """Disabled by its file: told so, and out."""
    server = t.server(client_files(t))
    one, two = t.client(number=1), t.client(number=2)
    iperf = t.process(t.net.server.inside("iperf3", "-s", "-1", "-B", "10.8.0.1", "--forceflush"), "iperf3-server")
    iperf.expect("Server listening")
    transfer = t.process(one.host.inside("iperf3", "-c", "10.8.0.1", "-t", "4", "--forceflush"), "iperf3")
    transfer.expect("sec")
    (t.dir / "ccd" / "client2").write_text("disable\n")
    reload(server)
    two.process.expect("AUTH_FAILED|auth-failure", dies=True)
    transfer.expect("receiver", timeout=20, dies=True)
    if one.process.count(one.UP) != 1:
        raise Failure("client1 started over")
    t.ping_server(one)
    server.alive()


@case(clients=2, own=True)
def certificates_and_the_revocation_list(t):
    """A list that is new shuts a client out at once; a certificate that is new is shown from then on."""
    authority = pki.Authority(t.dir / "pki")
    identities = {name: authority.issue(name, usage=usage)
                  for name, usage in (("server", "server"), ("client1", "client"), ("client2", "client"))}
    server = t.server(identity=identities["server"], ca=authority.cert)
    one, two = (t.client(number=n, identity=identities[f"client{n}"], ca=authority.cert) for n in (1, 2))
    ping = Ping(t, one.host, "10.8.0.1")
    authority.revoke("client2")
    key, cert = authority.issue("renewed", usage="server")
    for old, new in zip(identities["server"], (key, cert)):
        edit(server, str(old), str(new))
    server.config.write_text(server.config.read_text() + f"crl-verify {authority.crl()}\n")
    reload(server)
    two.process.expect("AUTH_FAILED|auth-failure", dies=True)
    ping.finish()
    if one.process.count(one.UP) != 1:
        raise Failure("client1 started over")
    mark = one.process.mark()
    one.process.send(signal.SIGUSR1)
    one.wait_up_again(mark)
    if not one.process.seen("CN ?= ?renewed", after=mark):
        raise Failure("the old certificate is still shown")
    t.ping_server(one)
    server.alive()


@case(own=True)
def a_mistake_is_named_and_changes_nothing(t):
    server = t.server("push \"route 10.66.0.0 255.255.0.0\"")
    client = t.client()
    ping = Ping(t, client.host, "10.8.0.1", count=60)
    good = server.config.read_text()
    line = good.count("\n") + 1
    server.config.write_text(good + "kepalive 10 60\n")
    said = reload(server, "the old one stays in force")
    if not re.search(rf"server\.conf:{line}: .*kepalive", said):
        raise Failure(f"the line is not named: {said}")
    server.config.unlink()
    reload(server, "the old one stays in force")
    ping.finish()
    server.config.write_text(good.replace("10.66", "10.67"))
    mark = client.process.mark()
    reload(server)
    client.wait_up_again(mark)
    if "10.67.0.0/16" not in routes(client.host):
        raise Failure(f"{routes(client.host)}")
    server.alive()


@case(own=True)
def what_has_to_be_opened_again_is(t):
    server = t.server("explicit-exit-notify 1")
    client = t.client()
    t.ping_server(client)
    edit(server, "dev tun0", "dev tun7")
    mark = client.process.mark()
    reload(server, "dev: changed, so everything is closed and opened again")
    client.wait_up_again(mark)
    t.ping_server(client)
    links = json.loads(t.net.server.run("ip", "-j", "link").stdout)
    if {link["ifname"] for link in links} & {"tun0", "tun7"} != {"tun7"}:
        raise Failure(f"{[link['ifname'] for link in links]}")
    # The port, too: the client comes back by itself as soon as it is the old one again.
    edit(server, "port 1194", "port 1195")
    reload(server, "running: tun7.*port 1195")
    edit(server, "port 1195", "port 1194")
    mark = client.process.mark()
    reload(server, "running: tun7.*port 1194")
    client.wait_up_again(mark, timeout=90)
    t.ping_server(client)
    # One that somebody else has: known before anything is closed.
    ping = Ping(t, client.host, "10.8.0.1", count=40)
    other = t.process(t.net.server.inside("python3", "-c", """
import socket, time
taken = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
taken.bind(("::", 1196))
print("taken", flush=True)
time.sleep(60)
"""), "other")
    other.expect("(?m)^taken$")
    edit(server, "port 1194", "port 1196")
    reload(server, "port: cannot change now")
    ping.finish()
    server.alive()


@case(own=True)
def without_the_privileges_of_the_start(t):
    """Keys that only root may read stay as they were; the rest is read and holds."""
    key = t.dir / "server.key"
    key.write_bytes((t.shared.authority.dir / "server.key").read_bytes())
    key.chmod(0o600)
    server = t.server(client_files(t), "user nobody", "group nogroup",
                      identity=(key, t.shared.authority.dir / "server.crt"))
    client = t.client()
    (t.dir / "ccd" / "client1").write_text('push "route 10.77.0.0 255.255.0.0"\n')
    mark = client.process.mark()
    said = reload(server)
    if not re.search(r"server\.key: Permission denied; going on with what it held at the start", said):
        raise Failure(said)
    client.wait_up_again(mark)
    if "10.77.0.0/16" not in routes(client.host):
        raise Failure(f"{routes(client.host)}")
    edit(server, "port 1194", "port 1195")
    reload(server, "port: cannot change now: .*`user`.*restart the service")
    edit(server, "port 1195", "port 1194")
    server.config.chmod(0o600)
    said = reload(server, "the old one stays in force")
    if not re.search(r"server\.conf.*Permission denied(.|\n)*as the user and group", said):
        raise Failure(said)
    t.ping_server(client)
    server.alive()


@case(own=True)
def by_the_management_interface_and_with_a_log_that_was_moved_away(t):
    log = t.dir / "log"
    server = t.server("management 127.0.0.1 7505", f"log-append {log}")
    client = t.client()
    ping = Ping(t, client.host, "10.8.0.1", count=40)
    log.rename(t.dir / "log.1")
    answer = ask(t, "127.0.0.1", 7505, "signal SIGHUP")
    if "SUCCESS: signal SIGHUP thrown" not in answer:
        raise Failure(answer)
    until(lambda: log.exists() and IN_FORCE in log.read_text(), "nothing in the new log", timeout=10)
    ping.finish()
    if client.process.count(client.UP) != 1:
        raise Failure("the client started over")
    server.alive()


@case(clients=2, own=True)
def of_the_server_that_needs_no_configuration(t):
    server = Up(t)
    server.config = server.state / "server.conf"
    server.command("client", "add", "laptop")
    one = server.client(server.state / "clients" / "client1.ovpn", number=1)
    reload(server)
    two = server.client(server.state / "clients" / "laptop.ovpn", number=2)
    if one.process.count(one.UP) != 1:
        raise Failure("client1 started over")
    server.config.write_text(server.config.read_text() + 'push "route 10.66.0.0 255.255.0.0"\n')
    marks = [client.process.mark() for client in (one, two)]
    reload(server)
    for client, mark in zip((one, two), marks):
        client.wait_up_again(mark)
        server.ping(client)
    server.command("client", "revoke", "laptop")
    reload(server)
    server.ping(one)


def of_a_client(t):
    """It connects anew, with what its file says now."""
    server = t.server('push "route 10.66.0.0 255.255.0.0"')
    peer = client_host.client(t)
    t.ping(peer.host, "10.8.0.1")
    edit(peer, "verb 4", "route-nopull\nverb 4")
    mark = peer.process.mark()
    peer.process.send(signal.SIGHUP)
    peer.wait_up_again(mark)
    if "10.66.0.0/16" in routes(peer.host):
        raise Failure(f"{routes(peer.host)}")
    t.ping(peer.host, "10.8.0.1")
    edit(peer, "route-nopull", "rout-nopull")
    mark = peer.process.mark()
    peer.process.send(signal.SIGHUP)
    peer.process.expect(r"client1\.conf:\d+: .*rout-nopull", after=mark)
    t.ping(peer.host, "10.8.0.1")
    server.alive()


client_host.stock(of_a_client, "reload.of-a-client")
