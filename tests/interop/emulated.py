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
SERVER_ONLY = PROGRAM.with_name("sixgate-server")
EMULATOR = ["qemu-mips-static", "-cpu", "24Kc"]


def serve(t, *lines: str, program=PROGRAM):
    """The server, once it listens."""
    if not program.exists():
        raise Failure(f"no {program}: run 'cross/build {TRIPLE}', and again with --no-default-features")
    server = t.server("sixgate-offload off", *lines, wrap="tls-crypt-v2", start=False)
    server.process = t.process(server.host.inside(*EMULATOR, program, "run", server.config), "server")
    server.wait_running()
    return server


def tunnel(t, program=PROGRAM) -> None:
    server = serve(t, program=program)
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


def server_only(t) -> None:
    """The build without any feature: makes keys and profiles, serves, is smaller, and says what it cannot do."""
    state = t.dir / "state"

    def sixgate(*arguments, status: int = 0) -> str:
        done = t.net.server.run(*EMULATOR, SERVER_ONLY, *arguments, check=False, timeout=60)
        if done.returncode != status:
            raise Failure(f"{arguments}: status {done.returncode}\n{done.stdout}")
        return done.stdout

    tunnel(t, SERVER_ONLY)
    sixgate("init", "--dir", state, "--endpoint", "203.0.113.1")
    profile = sixgate("client", "add", "phone", "--dir", state, "--out", "-")
    if "remote 203.0.113.1 1194" not in profile or "<tls-crypt-v2>" not in profile:
        raise Failure(profile)
    sixgate("check", state / "server.conf")
    text = sixgate("run", t.write("phone.ovpn", profile), status=1)
    if "built without the client role" not in text:
        raise Failure(f"a client's configuration is refused without saying so:\n{text}")
    sizes = [file.stat().st_size for file in (SERVER_ONLY, PROGRAM)]
    print(f"        server only: {sizes[0]} bytes, with everything {sizes[1]}")
    if sizes[0] >= sizes[1]:
        raise Failure("the server alone is not smaller")


# Only when asked for: they need what cross/build makes.
add("emulated", "tunnel", tunnel, own=True, asked=True)
add("emulated", "server-only", server_only, own=True, asked=True)
add("emulated", "renegotiation", renegotiation, own=True, asked=True)
