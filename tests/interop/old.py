"""What older peers bring: compression framings, no cipher negotiation, options strings that are
compared; and peers too old, which are refused with what to change on them."""

import re

from lib.case import SIXGATE, add, case
from lib.peers import Client, Server, Wrap
from lib.process import Failure

# A stock client's complaint about our options string.
COMPLAINT = r"WARNING: .*(used inconsistently|present in (local|remote) config)"

# The cases of both releases in which OpenVPN still had compression; None is the machine's own 2.6.
RELEASES = {"2.5": "bullseye", "2.6": None}
FRAMINGS = ("comp-lzo no", "comp-lzo", "compress", "compress stub-v2", "compress lz4", "compress lz4-v2")


def works(t, client: Client) -> None:
    t.ping_server(client)
    t.ping(t.net.server, client.v4)
    t.iperf(client.host, t.net.server, "fd00:10:8::1", mebibytes=2)


def no_complaint(stock: Client | Server) -> None:
    found = [line for line in stock.process.text().splitlines() if re.search(COMPLAINT, line)]
    if found:
        raise Failure("\n".join(found))


def framed_client(suite: str | None, framing: str):
    def run(t):
        t.suite = suite
        server = t.server("compress migrate")
        client = t.client(framing, "allow-compression asym")
        works(t, client)
        no_complaint(client)
        client.process.expect("PUSH_REPLY.*,compress stub-v2,")
        server.alive()
    return run


def framed_server(suite: str | None, framing: str, how: str):
    """`how`: the client has it in its configuration, or is pushed it, or has one and is pushed another."""
    def run(t):
        t.stock, t.suite = True, suite
        pushed = [f'push "{framing}"'] if how != "configured" else []
        t.server(framing, "allow-compression asym", *pushed)
        own = {"configured": [framing], "pushed": [], "changed": ["comp-lzo no"]}[how]
        client = Client(t, t.net.clients[0], "client1", Wrap("tls-crypt", t.shared), own)
        client.process = t.process(client.host.inside(SIXGATE, "run", client.config), "client1")
        t.until_ping(client.host, "10.8.0.1")
        works(t, client)
    return run


for version, suite in RELEASES.items():
    for framing in FRAMINGS:
        name = framing.replace(" ", "-")
        add("old", f"client-{version}.{name}", framed_client(suite, framing), own=True)
    for number, framing in enumerate(FRAMINGS):
        how = ("configured", "pushed", "changed")[number % 3]
        add("old", f"server-{version}.{framing.replace(' ', '-')}.{how}", framed_server(suite, framing, how), own=True)


def without_negotiation(server_lines: list[str], client_lines: list[str], cipher: str):
    """A client of 2.4's kind: it names a cipher in its options string, and no list."""
    def run(t):
        t.suite = "bullseye"
        server = t.server(*server_lines)
        client = t.client("ncp-disable", *client_lines)
        works(t, client)
        no_complaint(client)
        server.expect("", f"connected as peer 0.*{cipher}")
        if client.process.seen("PUSH_REPLY.*,cipher "):
            raise Failure("a cipher was pushed to a client that cannot change it")
    return run


for name, server_lines, client_lines, cipher in (
    ("cipher-and-auth", ["cipher AES-256-CBC", "auth SHA256"], ["cipher AES-256-CBC", "auth SHA256"], "AES-256-CBC"),
    ("fallback", ["data-ciphers-fallback AES-128-CBC"], ["cipher AES-128-CBC"], "AES-128-CBC"),
    ("aead", ["cipher AES-256-GCM"], ["cipher AES-256-GCM"], "AES-256-GCM"),
):
    add("old", f"client-without-negotiation.{name}", without_negotiation(server_lines, client_lines, cipher), own=True)


@case(own=True)
def server_without_negotiation(t):
    t.stock, t.suite = True, "bullseye"
    t.server("ncp-disable", "cipher AES-256-CBC", "auth SHA512")
    client = Client(t, t.net.clients[0], "client1", Wrap("tls-crypt", t.shared), ["cipher AES-256-CBC", "auth SHA512"])
    client.process = t.process(client.host.inside(SIXGATE, "run", client.config), "client1")
    client.process.expect("connected to .*AES-256-CBC")
    t.until_ping(client.host, "10.8.0.1")
    t.ping(client.host, "fd00:10:8::1")
    t.iperf(client.host, t.net.server, "10.8.0.1", mebibytes=2)


def too_old(lines: list[str], says: str, client_sees: str):
    def run(t):
        t.suite = "bullseye"
        server = t.server()
        bad = t.client(*lines, up=False)
        server.expect("", says)
        bad.process.expect(client_sees, dies=True, timeout=70)
        bad.process.kill()
        server.alive()
    return run


add("old", "refused.tls-1.1", too_old(
    ["tls-version-min 1.0", "tls-version-max 1.1", "tls-cipher DEFAULT:@SECLEVEL=0"],
    "peer offers TLS 1.1 at most.*raise its tls-version-max to 1.2", "TLS Error"), own=True)
add("old", "refused.bf-cbc", too_old(
    ["data-ciphers BF-CBC", "cipher BF-CBC"],
    r"it offers only BF-CBC: set `data-ciphers AES-256-GCM` on it", "no shared cipher"), own=True)
add("old", "refused.bf-cbc-without-negotiation", too_old(
    ["ncp-disable", "cipher BF-CBC"],
    r"it offers only BF-CBC: set `cipher AES-256-GCM` on it", "no shared cipher"), own=True)


def server_too_old(lines: list[str], says: str):
    def run(t):
        t.stock, t.suite = True, "bullseye"
        t.server(*lines)
        client = Client(t, t.net.clients[0], "client1", Wrap("tls-crypt", t.shared), ["hand-window 6"])
        client.process = t.process(client.host.inside(SIXGATE, "run", client.config), "client1")
        client.process.expect(says, timeout=40)
        if client.process.seen("the tunnel to .* is up"):
            raise Failure("it uses the tunnel all the same")
    return run


add("old", "refused-server.tls-1.1", server_too_old(
    ["tls-version-min 1.0", "tls-version-max 1.1", "tls-cipher DEFAULT:@SECLEVEL=0"],
    # It ends the handshake without a word.
    r"fell silent in the TLS handshake; its log says why. It may offer TLS 1.1 at most \(raise its tls-version-max to 1.2"), own=True)
add("old", "refused-server.bf-cbc", server_too_old(
    ["data-ciphers BF-CBC", "cipher BF-CBC"], "no shared cipher"), own=True)
add("old", "refused-server.bf-cbc-without-negotiation", server_too_old(
    ["ncp-disable", "cipher BF-CBC"],
    "the server wants data cipher 'BF-CBC', which is not supported here: set data-ciphers on the server"), own=True)


def mtu_test(t):
    """It takes a stock client three minutes and a half to find out what gets through."""
    t.server()
    client = t.client("mtu-test")
    sizes = client.process.expect(r"Empirical MTU test completed \[Tried,Actual\] local->remote=\[(\d+),(\d+)\] remote->local=\[(\d+),(\d+)\]",
                                  timeout=300)
    if sizes[1] != sizes[2] or sizes[3] != sizes[4] or int(sizes[4]) < 1400:
        raise Failure(f"the client finds {sizes[0]}")


add("old", "mtu-test", mtu_test, own=True, asked=True)


def options_string(suite: str | None, lines: list[str], wrap: str):
    """No complaint in the log of a client that compares."""
    def run(t):
        t.suite = suite
        t.server(*lines, wrap=wrap)
        client = Client(t, t.net.clients[0], "client1", Wrap(wrap, t.shared), lines)
        # 2.6 and newer complain at this level only.
        client.start(verb=7)
        client.wait_up()
        t.ping_server(client)
        no_complaint(client)
    return run


def options_string_of_our_client(suite: str | None, lines: list[str], wrap: str):
    """No complaint in the log of a server that compares."""
    def run(t):
        t.stock, t.suite = True, suite
        server = t.server(*lines, "verb 7", wrap=wrap)
        client = Client(t, t.net.clients[0], "client1", Wrap(wrap, t.shared), lines)
        client.process = t.process(client.host.inside(SIXGATE, "run", client.config), "client1")
        t.until_ping(client.host, "10.8.0.1")
        t.ping_server(client)
        no_complaint(server)
    return run


for version, suite in {**RELEASES, "2.7": "sid"}.items():
    for name, lines, wrap in (
        ("plain", [], "none"), ("tls-auth", [], "tls-auth-sha256"), ("gcm", ["cipher AES-256-GCM"], "tls-crypt"),
        ("chacha", ["cipher CHACHA20-POLY1305", "data-ciphers CHACHA20-POLY1305"], "tls-crypt"),
        ("cbc", ["cipher AES-256-CBC", "auth SHA512", "data-ciphers AES-256-CBC"], "tls-crypt"),
        ("mtu", ["tun-mtu 1400"], "tls-crypt"),
    ):
        add("old", f"options-string.{version}.{name}", options_string(suite, lines, wrap), own=True)
        add("old", f"options-string-of-client.{version}.{name}", options_string_of_our_client(suite, lines, wrap), own=True)
