"""Many packets per system call: between sixgate and itself, where whole rows of datagrams travel."""

import re
import signal

from lib.case import SIXGATE, add, tunnel_addresses
from lib.peers import Client, Wrap
from lib.process import Failure


def rows(mode: str, wanted: str, transport: int):
    def run(t):
        line = [f"sixgate-offload {mode}"]
        server = t.server(*line, "client-to-client")
        processes = [server.process]
        hosts = t.net.clients
        for number, host in enumerate(hosts, 1):
            config = Client(t, host, f"client{number}", Wrap("tls-crypt", t.shared), line, transport=transport).config
            processes.append(t.process(host.inside(SIXGATE, "run", config), f"client{number}"))
            t.until_ping(host, "10.8.0.1")
        # Through one engine, and through the server's from one row of datagrams into another.
        for address in ("10.8.0.1", "fd00:10:8::1"):
            t.iperf(hosts[0], t.net.server, address, mebibytes=32)
        for address in tunnel_addresses(hosts[1]):
            t.iperf(hosts[0], hosts[1], address, mebibytes=32)
        for process in processes:
            process.send(signal.SIGUSR2)
            process.expect(wanted)
            lost = re.findall(r"dropped (malformed|bad-auth|too-big|not-ip|bad-source|oversized) (\d+)", process.text())
            if lost or process.seen("panicked at"):
                raise Failure(f"{process.log.name}: {lost or 'a panic'}")
    return run


# Datagrams as fast as they go, to somebody who takes them and reads none; says how many.
FLOOD = """
import socket, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect(("10.8.0.1", 9999))
end, sent = time.monotonic() + 8, 0
while time.monotonic() < end:
    for _ in range(100):
        out.send(bytes(100))
    sent += 100
print("sent", sent, flush=True)
"""
SINK = """
import socket, time
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(("10.8.0.1", 9999))
print("bound", flush=True)
time.sleep(60)
"""


def flood(t):
    """One client that sends all it can: another one is served all the same, in both directions."""
    server = t.server()
    hosts = t.net.clients
    for number, host in enumerate(hosts, 1):
        config = Client(t, host, f"client{number}", Wrap("tls-crypt", t.shared)).config
        t.process(host.inside(SIXGATE, "run", config), f"client{number}")
        t.until_ping(host, "10.8.0.1")
    t.process(t.net.server.inside("python3", "-c", SINK), "sink").expect("(?m)^bound$")
    flooding = t.process(hosts[0].inside("python3", "-c", FLOOD), "flood")
    # The socket's buffer is everybody's, and what it has no room for may be anybody's.
    pings = hosts[1].run("ping", "-n", "-q", "-i", "0.05", "-c", "100", "-W", "5", "10.8.0.1", check=False).stdout
    answered = re.search(r"(\d+) received", pings)
    if not flooding.alive:
        raise Failure("the flood was over before the pings were")
    flooding.expect(r"sent \d+", timeout=60, dies=True)
    sent = int(re.search(r"sent (\d+)", flooding.text())[1])
    if sent < 20_000 or not answered or int(answered[1]) < 50:
        raise Failure(f"beside a flood of {sent} datagrams: {pings}")
    if server.process.seen("panicked at"):
        raise Failure("a panic")


add("offload", "flood", flood, clients=2, own=True)
for transport in (4, 6):
    add("offload", f"auto.udp{transport}", rows("auto", r"offload tun tso4 tso6( uso)? udp segment gro", transport), clients=2, own=True)
add("offload", "off.udp4", rows("off", "offload tun off udp off", 4), clients=2, own=True)
