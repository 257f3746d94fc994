"""Who must not come in does not, the server's log says why, and the server does not mind."""

import sys
import time
from pathlib import Path

from lib import pki
from lib.case import case
from lib.process import Failure

PAST = ("200101000000Z", "200201000000Z")
FUTURE = ("450101000000Z", "460101000000Z")


def refused(t, server, stock: str, sixgate: str, *lines: str, **options) -> None:
    """A client with these options stays outside, the log says `stock` or `sixgate`; then a proper one comes in."""
    mark = server.process.mark()
    bad = t.client(*lines, number=2, up=False, **options)
    server.expect(stock, sixgate, after=mark)
    if bad.process.seen(bad.UP):
        raise Failure("it came in")
    bad.process.kill()
    t.ping_server(t.client())
    server.alive()


@case(clients=2)
def wrong_tls_crypt_key(t):
    server = t.server()
    other = pki.static_key(t.dir / "other.key")
    refused(t, server, "tls-crypt unwrapping failed|packet authentication failed", "bad-wrap", f"tls-crypt {other}", wrap="none")


@case(clients=2)
def wrong_tls_auth_key(t):
    server = t.server(wrap="tls-auth-sha256")
    other = pki.static_key(t.dir / "other.key")
    mark = server.process.mark()
    bad = t.client("auth SHA256", f"tls-auth {other} 1", number=2, up=False, wrap="none")
    server.expect("packet HMAC authentication failed", "bad-wrap", after=mark)
    bad.process.kill()
    t.ping_server(t.client(wrap="tls-auth-sha256"))
    server.alive()


@case(clients=2)
def client_key_of_another_server(t):
    server = t.server(wrap="tls-crypt-v2")
    other = pki.v2_client_key(pki.v2_server_key(t.dir / "other-server.key"), t.dir / "other-client.key")
    mark = server.process.mark()
    bad = t.client(f"tls-crypt-v2 {other}", number=2, up=False, wrap="none")
    server.expect("client key authentication error|Can not unwrap tls-crypt-v2", "bad-client-key", after=mark)
    bad.process.kill()
    t.ping_server(t.client(wrap="tls-crypt-v2"))
    server.alive()


@case(clients=2)
def another_authority(t):
    server = t.server()
    other = pki.Authority(t.dir / "other")
    refused(t, server, "VERIFY ERROR.*(unable to get|self-signed)", "(?i)not signed by the CA|unknown (ca|issuer|authority)",
            identity=other.issue("client2"))


@case(clients=2)
def expired(t):
    server = t.server()
    refused(t, server, "certificate has expired", "(?i)expired", identity=t.shared.authority.issue("expired", dates=PAST))


@case(clients=2)
def not_valid_yet(t):
    server = t.server()
    refused(t, server, "certificate is not yet valid", "(?i)not (yet )?valid",
            identity=t.shared.authority.issue("early", dates=FUTURE))


@case(clients=2)
def wrong_purpose(t):
    server = t.server("remote-cert-tls client")
    refused(t, server, "unsuitable certificate purpose|unsupported certificate purpose|VERIFY (KU|EKU) ERROR", "(?i)is for servers|purpose|usage",
            identity=t.shared.authority.issue("false-server", usage="server"))


@case(clients=2)
def wrong_name(t):
    server = t.server("verify-x509-name client1 name")
    refused(t, server, "VERIFY X509NAME ERROR", "(?i)name")


@case(clients=2)
def revoked_by_list(t):
    authority = pki.Authority(t.dir / "pki")
    identities = {name: authority.issue(name, usage=usage)
                  for name, usage in (("server", "server"), ("client1", "client"), ("client2", "client"))}
    authority.revoke("client2")
    server = t.server(f"crl-verify {authority.crl()}", identity=identities["server"], ca=authority.cert)
    mark = server.process.mark()
    bad = t.client(number=2, up=False, identity=identities["client2"], ca=authority.cert)
    server.expect("certificate revoked", "(?i)revoked", after=mark)
    bad.process.kill()
    t.ping_server(t.client(identity=identities["client1"], ca=authority.cert))
    server.alive()


@case(clients=2)
def revoked_while_running(t):
    """The list is read again when it changes."""
    authority = pki.Authority(t.dir / "pki")
    identities = {name: authority.issue(name, usage=usage)
                  for name, usage in (("server", "server"), ("client1", "client"), ("client2", "client"))}
    server = t.server(f"crl-verify {authority.crl()}", identity=identities["server"], ca=authority.cert)
    second = t.client(number=2, identity=identities["client2"], ca=authority.cert)
    second.stop()
    # Its time stamp tells that it changed, in whole seconds for some.
    time.sleep(1.1)
    authority.revoke("client2")
    authority.crl()
    mark = server.process.mark()
    second.start()
    server.expect("certificate revoked", "(?i)revoked", after=mark)
    second.process.kill()
    t.ping_server(t.client(identity=identities["client1"], ca=authority.cert))


@case(clients=2)
def no_common_cipher(t):
    server = t.server("data-ciphers CHACHA20-POLY1305")
    mark = server.process.mark()
    bad = t.client("data-ciphers AES-128-GCM", number=2, up=False)
    bad.process.expect("AUTH_FAILED|no shared cipher", dies=True)
    server.expect("no common cipher|No common cipher|no shared cipher", "(?i)cipher", after=mark)
    t.ping_server(t.client("data-ciphers CHACHA20-POLY1305"))
    server.alive()


@case()
def the_client_refuses_a_server_of_another_authority(t):
    # A stock client says nothing, it just stops.
    server = t.server("hand-window 5", identity=pki.Authority(t.dir / "other").issue("server", usage="server"))
    client = t.client(up=False)
    client.process.expect("VERIFY ERROR")
    server.expect("TLS handshake failed|tls-error|TLS Error", "did not finish in time")
    server.alive()


@case(clients=2, alone=True)
def a_flood_of_rubbish(t):
    """Dropped without a word to it: memory stays flat and a live client hardly notices."""
    flood = Path(__file__).parent / "lib" / "flood.py"
    for number, wrap in enumerate(("tls-crypt", "none", "tls-crypt-v2", "tls-auth-sha1")):
        server = t.server(wrap=wrap)
        client = t.client(wrap=wrap)
        attacker = t.net.clients[1]

        def attack(seed: int) -> None:
            for address in (t.net.server.v4, t.net.server.v6):
                attacker.run(sys.executable, flood, address, 1194, 10_000, seed, timeout=60)

        attack(number)
        before = server.process.resident_kib()
        attack(number + 10)
        t.ping_server(client)
        grown = server.process.resident_kib() - before
        if grown > 512:
            raise Failure(f"{wrap}: the server grew by {grown} KiB, from {before}")
        server.alive()
        newcomer = t.client(number=2, wrap=wrap)
        t.ping_server(newcomer)
        newcomer.stop()
        client.stop()
        server.process.stop()
