"""New keys under live traffic, wanted by either side: not one packet may be lost."""

import json
import time

from lib.case import Ping, add, case
from lib.process import Failure

# What a stock client logs for each TLS handshake.
HANDSHAKE = r"Control Channel: TLSv1\.[23]"
# Long enough for two renegotiations at `reneg-sec 4`.
SECONDS = 11


def under_ping(wrap: str, version: str, server_lines: list[str], client_lines: list[str]):
    def run(t):
        server = t.server(*server_lines, wrap=wrap)
        client = t.client(f"tls-version-max {version}", *client_lines, wrap=wrap)
        ways = ((client.host, "10.8.0.1"), (client.host, "fd00:10:8::1"), (t.net.server, client.v4))
        for ping in [Ping(t, host, address, SECONDS * 50, 0.02) for host, address in ways]:
            ping.finish()
        handshakes = client.process.count(HANDSHAKE)
        if handshakes < 3:
            raise Failure(f"only {handshakes} handshakes in {SECONDS} s")
        if client.process.count(client.UP) != 1:
            raise Failure("the client started over")
        t.ping_server(client)
        server.alive()
    return run


SIDES = {
    "server": (["reneg-sec 4"], ["reneg-sec 0"]),
    "client": (["reneg-sec 0"], ["reneg-sec 4"]),
    "both": (["reneg-sec 4"], ["reneg-sec 4"]),
}
for side, (server_lines, client_lines) in SIDES.items():
    for wrap, version in (("tls-crypt", "1.3"), ("none", "1.2")):
        add("renegotiation", f"started-by-{side}.{wrap}", under_ping(wrap, version, server_lines, client_lines))
for wrap in ("tls-auth-sha256", "tls-crypt-v2"):
    add("renegotiation", f"started-by-both.{wrap}", under_ping(wrap, "1.3", *SIDES["both"]))


@case()
def in_the_middle_of_a_transfer(t):
    server = t.server("reneg-sec 4")
    client = t.client("reneg-sec 0")
    receiver = t.process(t.net.server.inside("iperf3", "-s", "-B", "fd00:10:8::1", "--forceflush"), "iperf3-server")
    receiver.expect("Server listening")
    done = client.host.run("iperf3", "-c", "fd00:10:8::1", "-t", SECONDS, "-b", "50M", "-J", timeout=SECONDS + 30)
    stalls = [i for i in json.loads(done.stdout)["intervals"] if i["sum"]["bytes"] == 0]
    if stalls:
        raise Failure(f"the transfer stood still for {len(stalls)} s")
    if client.process.count(HANDSHAKE) < 3:
        raise Failure("no renegotiation happened")
    t.ping_server(client)
    server.alive()


@case(alone=True)
def past_the_last_key_id(t):
    """Key ids run 0..7 and then start over at 1."""
    server = t.server("reneg-sec 1")
    client = t.client("reneg-sec 0")
    deadline = time.monotonic() + 60
    while client.process.count(HANDSHAKE) < 10:
        if time.monotonic() > deadline:
            raise Failure(f"only {client.process.count(HANDSHAKE)} handshakes in a minute")
        t.ping(client.host, "fd00:10:8::1")
        time.sleep(0.3)
    t.ping_server(client)
    if client.process.count(client.UP) != 1:
        raise Failure("the client started over")
    server.alive()
