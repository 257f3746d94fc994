"""OpenVPN 3 as the client of our server: OpenVPN 3 Linux as Debian sid packages it.

Its services find each other over D-Bus, which a case gives it for itself: a bus in the mounts and
the network of its client's namespace, and a root folder whose changes are thrown away.
"""

import re
import signal
import time

from lib.case import ROOT, SUITES, add
from lib.peers import Client, Wrap
from lib.process import Failure

# The services wait long for a host name service, which is not there, and give up the root user
# before they open the device. Starts the bus, then a session for the profile; says where its interface is; waits until it is
# told to end, and ends the session properly.
RUN = """
root=$1 folder=$2 profile=$3; shift 3
mount -t tmpfs tmpfs "$folder/layers" && mkdir "$folder/layers/upper" "$folder/layers/work"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$folder/layers/upper,workdir=$folder/layers/work" "$folder/root"
root=$folder/root
mkdir -p "$root$folder"
mount --bind /dev "$root/dev"; mount -t proc proc "$root/proc"; mount -t tmpfs tmpfs "$root/run"
mknod -m 666 "$root/run/tun" c 10 200; mount --bind "$root/run/tun" "$root/dev/net/tun"
rm -f "$root"/usr/share/dbus-1/system-services/org.freedesktop.*
mkdir -p "$root/run/dbus"; cp "$profile" "$root/profile.ovpn"
exec chroot "$root" sh -c '
  dbus-daemon --system --nofork --nopidfile & bus=$!
  finish() { trap - TERM; openvpn3 session-manage --config /profile.ovpn --disconnect; kill $bus; wait $bus; exit 0; }
  trap finish TERM
  while ! test -S /run/dbus/system_bus_socket; do sleep 0.1; done
  openvpn3 session-start --config /profile.ovpn && openvpn3 sessions-list
  echo STARTED: $?
  wait $bus
'
"""


class OpenVpn3(Client):
    """A client with the profile of an ordinary one, everything inline."""

    UP = "STARTED: 0"

    def start(self) -> None:
        root = SUITES / "sid-openvpn3"
        if not (root / "usr" / "bin" / "openvpn3").exists():
            raise Failure(f"no OpenVPN 3 in {root}: run 'tests/run setup'")
        folder = self.case.dir / f"{self.name}-root"
        for part in ("layers", "root"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        profile = self.case.write(f"{self.name}.ovpn", inline(self.config.read_text()))
        arguments = ["sh", "-ec", RUN, "sh", root, folder, profile]
        self.process = self.case.process(self.host.inside(*arguments), self.name)


def inline(text: str) -> str:
    """The contents of files in place of their names."""
    def block(found: re.Match) -> str:
        name, path, direction = found[1], found[2], found[3]
        with open(path) as file:
            content = file.read().strip()
        return f"<{name}>\n{content}\n</{name}>" + (f"\nkey-direction {direction}" if direction else "")
    return re.sub(r"^(ca|cert|key|tls-auth|tls-crypt|tls-crypt-v2) (\S+)(?: (\d))?$", block, text, flags=re.MULTILINE)


def connects(wrap: str, transport: int, cipher: str):
    def run(t):
        server = t.server(f"data-ciphers {cipher}", wrap=wrap)
        client = OpenVpn3(t, t.net.clients[0], "client1", Wrap(wrap, t.shared), transport=transport)
        client.start()
        client.process.expect(client.UP, timeout=60)
        for address in ("10.8.0.1", "fd00:10:8::1"):
            t.until_ping(client.host, address)
            t.ping(client.host, address)
            t.iperf(client.host, t.net.server, address, mebibytes=4)
        server.process.expect(f"connected as peer 0.*{cipher}")
        mark = server.process.mark()
        client.process.send(signal.SIGTERM)
        server.process.expect("the client has left", timeout=10, after=mark)
        server.alive()
    return run


for number, wrap in enumerate(("none", "tls-auth-sha256", "tls-crypt", "tls-crypt-v2")):
    transport, cipher = ((4, "AES-256-GCM"), (6, "CHACHA20-POLY1305"), (6, "AES-128-GCM"), (4, "CHACHA20-POLY1305"))[number]
    add("openvpn3", f"{wrap}.udp{transport}.{cipher}".lower(), connects(wrap, transport, cipher), own=True)
