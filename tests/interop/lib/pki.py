"""Certificates of every kind a case asks for, made with the openssl command line.

One authority is shared by all cases of a run; a case that revokes or needs odd keys makes its own.
"""

import threading
from pathlib import Path

from lib.process import command

KEYS = {
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:named_curve"],
    "p384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-pkeyopt", "ec_param_enc:named_curve"],
    "ed25519": ["-algorithm", "ED25519"],
    "rsa2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa4096": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
}

SETTINGS = """
[req]
distinguished_name = none
[none]
[ca]
default_ca = own
[own]
dir = {dir}
database = $dir/index.txt
serial = $dir/serial
crlnumber = $dir/crlnumber
new_certs_dir = $dir
certificate = $dir/ca.crt
private_key = $dir/ca.key
default_md = {digest}
default_days = 100
default_crl_days = 30
policy = any
unique_subject = no
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
[client]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
"""


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path, kind: str = "p256", name: str = "Interop CA", above: "Authority | None" = None):
        folder.mkdir(parents=True)
        self.dir = folder
        self.kind = kind
        self._lock = threading.Lock()
        digest = "default" if kind == "ed25519" else "sha256"
        (folder / "openssl.cnf").write_text(SETTINGS.format(dir=folder, digest=digest))
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text("1000\n")
        (folder / "crlnumber").write_text("01\n")
        if above:
            key, cert = above.issue(name, usage="authority", kind=kind)
            key.rename(folder / "ca.key")
            cert.rename(folder / "ca.crt")
        else:
            new_key(folder / "ca.key", kind)
            command("openssl", "req", "-x509", "-new", "-key", folder / "ca.key", "-subj", f"/CN={name}", "-days", "100",
                    "-config", folder / "openssl.cnf", "-extensions", "authority", "-out", folder / "ca.crt",
                    *([] if kind == "ed25519" else ["-sha256"]))
        self.cert = folder / "ca.crt"

    def issue(self, name: str, usage: str = "client", kind: str | None = None,
              dates: tuple[str, str] | None = None) -> tuple[Path, Path]:
        """A key and a certificate; `dates` as YYMMDDHHMMSSZ. The files are called after the name."""
        key, request, cert = (self.dir / f"{name}.{end}" for end in ("key", "csr", "crt"))
        new_key(key, kind or self.kind)
        command("openssl", "req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request,
                "-config", self.dir / "openssl.cnf")
        with self._lock:
            command("openssl", "ca", "-batch", "-notext", "-config", self.dir / "openssl.cnf", "-extensions", usage,
                    "-in", request, "-out", cert, *(["-startdate", dates[0], "-enddate", dates[1]] if dates else []))
        return key, cert

    def revoke(self, name: str) -> None:
        with self._lock:
            command("openssl", "ca", "-config", self.dir / "openssl.cnf", "-revoke", self.dir / f"{name}.crt")

    def crl(self) -> Path:
        """A new revocation list."""
        with self._lock:
            command("openssl", "ca", "-config", self.dir / "openssl.cnf", "-gencrl", "-out", self.dir / "crl.pem")
        return self.dir / "crl.pem"


def new_key(path: Path, kind: str) -> None:
    """A private key in PKCS#8."""
    command("openssl", "genpkey", *KEYS[kind], "-out", path)
    path.chmod(0o600)


def static_key(path: Path) -> Path:
    """A key for tls-auth or tls-crypt, made by OpenVPN."""
    command("openvpn", "--genkey", "secret", path)
    return path


def v2_server_key(path: Path) -> Path:
    command("openvpn", "--genkey", "tls-crypt-v2-server", path)
    return path


def v2_client_key(server_key: Path, path: Path) -> Path:
    command("openvpn", "--tls-crypt-v2", server_key, "--genkey", "tls-crypt-v2-client", path)
    return path
