"""Peers that know each other by `peer-fingerprint` alone: certificates signed by nobody but themselves, and no
authority at either end."""

import re

from client_host import Sixgate

from lib.case import Case, case
from lib.peers import Client, Wrap
from lib.process import Failure, command


class Card:
    """A certificate of one's own, as `openssl req -x509` makes it."""

    def __init__(self, t: Case, name: str):
        self.key, self.cert = t.dir / f"{name}.key", t.dir / f"{name}.crt"
        command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.cert)
        shown = command("openssl", "x509", "-in", self.cert, "-noout", "-fingerprint", "-sha256").stdout
        self.fingerprint = shown.strip().partition("=")[2]

    @property
    def files(self):
        return self.key, self.cert


def trust(peer, *cards: Card) -> None:
    """Takes the authority out of a configuration and puts these in its place; one in a line, several in a block."""
    text = re.sub(r"(?m)^(ca|remote-cert-tls) .*\n", "", peer.config.read_text())
    known = [card.fingerprint for card in cards]
    text += f"peer-fingerprint {known[0]}\n" if len(known) == 1 else "\n".join(["<peer-fingerprint>", *known, "</peer-fingerprint>", ""])
    peer.config.write_text(text)


def client(t, kind, card: Card, server: Card, number: int = 1) -> Client:
    peer = kind(t, t.net.clients[number - 1], f"client{number}", Wrap("tls-crypt", t.shared), identity=card.files)
    trust(peer, server)
    peer.start()
    return peer


@case(clients=2)
def of_a_stock_client(t):
    router, laptop, phone, stranger = (Card(t, name) for name in ("router", "laptop", "phone", "stranger"))
    server = t.server(identity=router.files, start=False)
    trust(server, phone, laptop)
    if not t.stock:
        t.sixgate("check", server.config)
    server.start()
    peer = client(t, Client, laptop, router)
    peer.wait_up()
    t.ping_server(peer)
    mark = server.process.mark()
    bad = client(t, Client, stranger, router, number=2)
    server.expect("peer-fingerprint certificate hash verification failed", f"certificate of 'stranger' has the fingerprint {stranger.fingerprint.lower()}, which",
                  after=mark)
    if bad.process.seen(bad.UP):
        raise Failure("it came in")
    bad.process.kill()
    # And a server that the client does not know.
    other = client(t, Client, phone, laptop, number=2)
    other.process.expect("peer-fingerprint certificate hash verification failed", dies=True)
    if other.process.seen(other.UP):
        raise Failure("it takes any server")
    t.ping_server(peer)
    server.alive()


@case(own=True)
def of_a_stock_server(t):
    t.stock = True
    router, laptop, stranger = (Card(t, name) for name in ("router", "laptop", "stranger"))
    server = t.server(identity=router.files, start=False)
    trust(server, laptop, stranger)
    server.start()
    peer = client(t, Sixgate, laptop, router)
    t.sixgate("check", peer.config)
    peer.wait_up()
    t.ping_server(peer)
    peer.stop()
    wrong = client(t, Sixgate, laptop, stranger)
    wrong.process.expect(f"certificate of 'router' has the fingerprint {router.fingerprint.lower()}, which peer-fingerprint does not list")
    if wrong.process.seen(wrong.UP):
        raise Failure("it takes any server")
