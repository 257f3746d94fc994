"""Every control channel wrapping, with either TLS version, every data cipher, over both families."""

import itertools

from lib.case import add, negotiated
from lib.peers import Wrap

TLS = {"1.2": ["tls-version-max 1.2"], "1.3": ["tls-version-min 1.3"]}
CIPHERS = ("CHACHA20-POLY1305", "AES-256-GCM", "AES-128-GCM")


def combination(wrap: str, version: str, cipher: str, transport: int):
    def run(t):
        t.server("data-ciphers CHACHA20-POLY1305:AES-256-GCM:AES-128-GCM", wrap=wrap)
        client = t.client(*TLS[version], f"data-ciphers {cipher}", wrap=wrap, transport=transport)
        negotiated(client.process.text(), version, cipher)
        t.ping_server(client)
        t.ping(t.net.server, client.v4)
        t.ping(t.net.server, client.v6)
    return run


# The transport alternates, so that each wrapping and each cipher crosses both.
for number, (wrap, version, cipher) in enumerate(itertools.product(Wrap.NAMES, TLS, CIPHERS)):
    transport = 4 if number % 2 == 0 else 6
    add("wraps", f"{wrap}.tls{version}.{cipher}.udp{transport}".lower(), combination(wrap, version, cipher, transport))
