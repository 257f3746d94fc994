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


for transport in (4, 6):
    add("offload", f"auto.udp{transport}", rows("auto", r"offload tun tso4 tso6( uso)? udp segment gro", transport), clients=2, own=True)
add("offload", "off.udp4", rows("off", "offload tun off udp off", 4), clients=2, own=True)
