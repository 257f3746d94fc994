"""sixgate as the client of a stock OpenVPN server and of itself."""

from lib.case import SIXGATE, add, tunnel_addresses
from lib.peers import Client, Wrap
from lib.process import Failure


def connects(wrap: str, transport: int, stock: bool):
    def run(t):
        t.stock = stock
        t.server(wrap=wrap)
        # Written for OpenVPN, and used as it is.
        config = Client(t, t.net.clients[0], "client1", Wrap(wrap, t.shared), transport=transport).config
        host = t.net.clients[0]
        process = t.process(host.inside(SIXGATE, "run", config), "client1")
        for address in ("10.8.0.1", "fd00:10:8::1"):
            t.until_ping(host, address)
            t.ping(host, address)
            t.iperf(host, t.net.server, address, mebibytes=4)
        for address in tunnel_addresses(host):
            t.ping(t.net.server, address)
        if process.seen("panicked at"):
            raise Failure("the client panicked")
        process.stop()
    return run


for number, wrap in enumerate(Wrap.NAMES):
    transport = 4 if number % 2 == 0 else 6
    add("client", f"of-stock.{wrap}.udp{transport}", connects(wrap, transport, stock=True), own=True)
add("client", "of-sixgate.tls-crypt-v2.udp6", connects("tls-crypt-v2", 6, stock=False), own=True)
