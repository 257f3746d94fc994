"""The router's program for big-endian MIPS as TUN server, under qemu-user, with a stock client: byte
order and word size in what goes to the kernel and to the peer.

Offload is off: qemu-user does not turn the bytes of its control messages round. A whole machine shows
that (system.py).
"""

from lib.case import ROOT, add
from lib.peers import Client
from lib.process import Failure

TRIPLE = "mips-unknown-linux-musl"
PROGRAM = ROOT / "target/cross" / TRIPLE / "router/sixgate"
EMULATOR = ["qemu-mips-static", "-cpu", "24Kc"]


def serve(t, *lines: str):
    """The server, once it listens."""
    if not PROGRAM.exists():
        raise Failure(f"no {PROGRAM}: run 'cross/build {TRIPLE}'")
    server = t.server("sixgate-offload off", *lines, wrap="tls-crypt-v2", start=False)
    server.process = t.process(server.host.inside(*EMULATOR, PROGRAM, "run", server.config), "server")
    server.wait_bound()
    return server


def tunnel(t) -> None:
    server = serve(t)
    for transport in (4, 6):
        client = t.client(wrap="tls-crypt-v2", transport=transport)
        t.ping_server(client)
        for address, own in (("10.8.0.1", client.v4), ("fd00:10:8::1", client.v6)):
            t.ping(t.net.server, own)
            t.iperf(client.host, t.net.server, address, mebibytes=2)
        client.stop()
    server.alive()


def renegotiation(t) -> None:
    server = serve(t, "reneg-sec 4 4")
    client: Client = t.client("reneg-sec 0", wrap="tls-crypt-v2")
    t.ping(client.host, "10.8.0.1", count=100, interval=0.1)
    keys = client.process.count("Data Channel: cipher|Outgoing Data Channel: Cipher")
    if keys < 3:
        raise Failure(f"only {keys} sets of keys in 10 seconds")
    t.ping_server(client)
    server.alive()


# Only when asked for: they need what cross/build makes.
add("emulated", "tunnel", tunnel, own=True, asked=True)
add("emulated", "renegotiation", renegotiation, own=True, asked=True)
