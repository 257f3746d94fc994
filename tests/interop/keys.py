"""Certificates and keys of every kind that people have, and Debian's easy-rsa."""

from lib import pki
from lib.case import add, case
from lib.process import command


def kind(ca_kind: str, leaf_kind: str, version: str):
    def run(t):
        authority = pki.Authority(t.dir / "pki", ca_kind)
        server = authority.issue("server", usage="server", kind=leaf_kind)
        client = authority.issue("client1", kind=leaf_kind)
        t.server("remote-cert-tls client", identity=server, ca=authority.cert)
        client = t.client(f"tls-version-max {version}", identity=client, ca=authority.cert)
        t.ping_server(client)
    return run


for ca_kind, leaf_kind in (("rsa2048", "rsa2048"), ("rsa4096", "rsa4096"), ("p384", "p384"), ("ed25519", "ed25519"),
                           ("rsa2048", "p256"), ("p256", "rsa2048")):
    for version in ("1.2", "1.3"):
        add("keys", f"{ca_kind}-signs-{leaf_kind}.tls{version}", kind(ca_kind, leaf_kind, version))


def encoding(leaf_kind: str, convert: list[str], says: str):
    def run(t):
        authority = pki.Authority(t.dir / "pki")
        key, cert = authority.issue("server", usage="server", kind=leaf_kind)
        old = t.dir / "old.key"
        command("openssl", *convert, "-in", key, "-out", old)
        assert says in old.read_text()
        t.server(identity=(old, cert), ca=authority.cert)
        t.ping_server(t.client(identity=authority.issue("client1"), ca=authority.cert))
    return run


add("keys", "pkcs1-server-key", encoding("rsa2048", ["rsa", "-traditional"], "BEGIN RSA PRIVATE KEY"))
add("keys", "sec1-server-key", encoding("p256", ["ec"], "BEGIN EC PRIVATE KEY"))


@case()
def chain_with_an_intermediate_authority(t):
    root = pki.Authority(t.dir / "root", "rsa2048", name="Root")
    middle = pki.Authority(t.dir / "middle", "p256", name="Middle", above=root)
    identities = []
    for name, usage in (("server", "server"), ("client1", "client")):
        key, cert = middle.issue(name, usage=usage)
        cert.write_text(cert.read_text() + middle.cert.read_text())
        identities.append((key, cert))
    t.server("remote-cert-tls client", identity=identities[0], ca=root.cert)
    t.ping_server(t.client(identity=identities[1], ca=root.cert))


@case()
def verify_x509_name(t):
    t.server("verify-x509-name client name-prefix")
    t.ping_server(t.client("verify-x509-name server name"))


@case()
def tls_version_min_is_kept(t):
    server = t.server("tls-version-min 1.3")
    client = t.client("tls-version-max 1.2", up=False)
    server.expect("Sent fatal SSL alert: protocol version", "no TLS protocol version in common")
    client.stop()
    t.ping_server(t.client("tls-version-min 1.3"))
    server.alive()


@case()
def easy_rsa(t):
    """An RSA authority as Debian's easy-rsa makes it, files inline in the server's configuration."""
    easyrsa = ["/usr/share/easy-rsa/easyrsa", "--batch"]
    for arguments in (["init-pki"], ["--req-cn=Easy CA", "build-ca", "nopass"],
                      ["build-server-full", "server", "nopass"], ["build-client-full", "client1", "nopass"]):
        command(*easyrsa, *arguments, cwd=t.dir)
    made = t.dir / "pki"
    inline = [f"<{name}>\n{file.read_text().strip()}\n</{name}>" for name, file in (
        ("ca", made / "ca.crt"), ("cert", made / "issued" / "server.crt"), ("key", made / "private" / "server.key"),
        ("tls-crypt", t.shared.static))]
    config = t.write("inline.conf", "\n".join([
        "port 1194", "proto udp6" if t.stock else "proto udp", "dev tun0", "topology subnet", "server 10.8.0.0 255.255.255.0",
        "server-ipv6 fd00:10:8::/64", "keepalive 10 60", "remote-cert-tls client", "dh none", "verb 4", *inline]) + "\n")
    server = t.server(start=False)
    server.config = config
    server.start()
    for transport in (4, 6):
        client = t.client(transport=transport, ca=made / "ca.crt",
                          identity=(made / "private" / "client1.key", made / "issued" / "client1.crt"))
        t.ping_server(client)
        client.stop()


@case()
def easy_rsa_elliptic_curve(t):
    easyrsa = ["/usr/share/easy-rsa/easyrsa", "--batch", "--use-algo=ec", "--curve=prime256v1"]
    for arguments in (["init-pki"], ["--req-cn=Easy CA", "build-ca", "nopass"],
                      ["build-server-full", "server", "nopass"], ["build-client-full", "client1", "nopass"]):
        command(*easyrsa, *arguments, cwd=t.dir)
    made = t.dir / "pki"
    t.server("remote-cert-tls client", ca=made / "ca.crt",
             identity=(made / "private" / "server.key", made / "issued" / "server.crt"))
    t.ping_server(t.client(ca=made / "ca.crt", identity=(made / "private" / "client1.key", made / "issued" / "client1.crt")))
