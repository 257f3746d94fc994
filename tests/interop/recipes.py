"""The recipes of README.md, with the very lines that stand there."""

import re
import shlex
import signal

from lib.case import ROOT, SIXGATE, case, tunnel_addresses
from lib.net import Host
from lib.peers import Client, Wrap
from lib.process import Failure, command
from up import Up


def lines(recipe: str) -> list[str]:
    """The indented lines of a recipe."""
    text = (ROOT / "README.md").read_text().split("\n## Recipes\n")[1].split("\n## ")[0]
    part = text if not recipe else text.split(f"\n**{recipe}**")[1]
    found = [line[4:] for line in re.split(r"\n\*\*", part)[0].splitlines() if line.startswith("    ")]
    if not found and recipe not in ("IPv6 only",):
        raise Failure(f"README.md has no lines for {recipe}")
    return found


def configure(server: Up, recipe: str) -> None:
    """Adds the lines of a recipe that are directives, and has them read."""
    conf = server.state / "server.conf"
    added = [line for line in lines(recipe) if line.startswith(("push ", "ndp-proxy "))]
    conf.write_text(conf.read_text() + "\n".join(added) + "\n")
    server.process.send(signal.SIGHUP)
    server.process.expect("the new configuration is in force|running: .*running: ")


def carry_out(host: Host, found: list[str], program: str) -> None:
    done = [line for line in found if line.startswith(program)]
    if not done:
        raise Failure(f"no line with {program}")
    for line in done:
        host.run(*shlex.split(line))


def forward(host: Host) -> None:
    carry_out(host, lines(""), "sysctl ")


def network(host: Host, v4: str, v6: str) -> None:
    """What answers at the addresses given, behind a host."""
    host.ip(f"addr add {v4}/32 dev lo", f"addr add {v6}/128 dev lo nodad")


def seen(t, host: Host, sender: Host, target: str) -> str:
    """Who a host sees when it is pinged."""
    capture = t.process(host.inside("tcpdump", "-n", "-l", "-c", "1", "-i", "eth0", "icmp[0] == 8 or ip6[40] == 128"), f"capture-{target.replace(':', '-')}")
    capture.expect("listening on")
    t.ping(sender, target)
    return capture.expect(r"IP6? (\S+) > ")[1]


@case(clients=2, own=True)
def full_tunnel(t):
    """The second host stands for the Internet: it knows the way to the server and nowhere else."""
    server, far = Up(t), t.net.clients[1]
    network(far, "198.51.100.9", "2001:db8:99::9")
    t.net.server.ip(f"route add 198.51.100.0/24 via {far.v4}", f"route add 2001:db8:99::/64 via {far.v6}")
    configure(server, "Full tunnel")
    forward(t.net.server)
    carry_out(t.net.server, lines("Full tunnel"), "nft ")
    client = server.client(server.state / "clients" / "client1.ovpn")
    for target, source in (("198.51.100.9", t.net.server.v4), ("2001:db8:99::9", t.net.server.v6)):
        if " dev tun0 " not in client.host.run("ip", "route", "get", target).stdout:
            raise Failure(f"{target} does not go into the tunnel")
        if (found := seen(t, far, client.host, target)) != source:
            raise Failure(f"{target} is reached from {found}")
    if not client.process.seen("dhcp-option DNS 10.8.0.1"):
        raise Failure("no DNS server")


@case(clients=2, own=True)
def lan_access(t):
    """The second host is in the LAN, with the server as its router."""
    server, inside = Up(t), t.net.clients[1]
    t.net.server.ip("addr add 192.168.1.1/24 dev eth0", "addr add fd00:1::1/64 dev eth0 nodad")
    inside.ip("addr add 192.168.1.5/24 dev eth0", "addr add fd00:1::5/64 dev eth0 nodad",
              "route add default via 192.168.1.1", "route add default via fd00:1::1")
    configure(server, "LAN access")
    forward(t.net.server)
    client = server.client(server.state / "clients" / "client1.ovpn")
    own = tunnel_addresses(client.host)
    for target, source in (("192.168.1.5", own[0]), ("fd00:1::5", own[1])):
        if (found := seen(t, inside, client.host, target)) != source:
            raise Failure(f"{target} is reached from {found}")


def site_to_site(t, ours: bool):
    server = Up(t)
    for line in lines("Site to site"):
        program, *arguments = shlex.split(line)
        if program != "sixgate":
            raise Failure(line)
        server.command(*arguments)
    network(t.net.server, "192.168.1.5", "fd00:1::5")
    configure(server, "LAN access")
    office, roamer = t.net.clients
    network(office, "192.168.50.5", "fd00:50::5")
    forward(office)
    forward(t.net.server)
    profile = server.state / "clients" / "office.ovpn"
    if ours:
        process = t.process(office.inside(SIXGATE, "run", profile), "office")
        process.expect("the tunnel to .* is up")
    else:
        server.client(profile, number=1)
    server.client(server.state / "clients" / "client1.ovpn", number=2)
    for sender in (t.net.server, roamer):
        t.until_ping(sender, "192.168.50.5")
        t.ping(sender, "fd00:50::5")
    for source, target in (("192.168.50.5", "192.168.1.5"), ("fd00:50::5", "fd00:1::5")):
        office.run("ping", "-n", "-c", 2, "-W", 2, "-I", source, target)


@case(clients=2, own=True)
def site_to_site_with_openvpn(t):
    site_to_site(t, ours=False)


@case(clients=2, own=True)
def site_to_site_with_sixgate(t):
    site_to_site(t, ours=True)


@case(own=True)
def ipv6_only(t):
    server = Up(t)
    server.stop()
    conf = server.state / "server.conf"
    line = re.search(r"take the line `([^`]+)` out", (ROOT / "README.md").read_text())[1]
    if f"\n{line}\n" not in conf.read_text():
        raise Failure(f"there is no such line: {line}")
    conf.write_text(conf.read_text().replace(f"\n{line}\n", "\n"))
    server.start()
    client = server.client(server.state / "clients" / "client1.ovpn")
    own = tunnel_addresses(client.host)
    if own[0] or not own[1]:
        raise Failure(f"{own}")
    t.ping(client.host, tunnel_addresses(t.net.server)[1])


@case(clients=2, own=True)
def a_single_64(t):
    """The second host is in the local network, and knows no more than that the /64 is on its link."""
    server, inside = Up(t), t.net.clients[1]
    server.stop()
    device, = [line for line in lines("A single /64") if line.startswith("ndp-proxy ")]
    conf = server.state / "server.conf"
    conf.write_text(conf.read_text() + device + "\n")
    name = device.split()[1]
    t.net.server.ip(f"link add {name} type veth peer name lan0 netns {inside.namespace}", f"link set {name} up",
                    f"addr add 2a00:db8:64::1/64 dev {name} nodad")
    inside.ip("link set lan0 up", "addr add 2a00:db8:64::5/64 dev lan0 nodad")
    forward(t.net.server)
    server.start()
    server.process.expect("clients have addresses in 2a00:db8:64::/64")
    client = server.client(server.state / "clients" / "client1.ovpn")
    own = tunnel_addresses(client.host)[1]
    if not own.startswith("2a00:db8:64:"):
        raise Failure(own)
    t.until_ping(inside, own)
    t.ping(client.host, "2a00:db8:64::5")


@case(own=True)
def moving_from_openvpn(t):
    """A PKI of easy-rsa, a configuration as stock servers have it, and a client that is left alone."""
    folder = t.dir / "openvpn"
    folder.mkdir()
    environment = ["env", f"EASYRSA_PKI={folder}/pki", "EASYRSA_BATCH=1", "EASYRSA_ALGO=ec"]
    for arguments in (["init-pki"], ["build-ca", "nopass"], ["build-server-full", "server", "nopass"],
                      ["build-client-full", "laptop", "nopass"], ["gen-crl"]):
        command(*environment, "/usr/share/easy-rsa/easyrsa", *arguments, cwd=folder, timeout=120)
    command("openvpn", "--genkey", "secret", folder / "ta.key")
    (folder / "ccd").mkdir()
    (folder / "ccd" / "laptop").write_text("ifconfig-push 10.8.0.50 255.255.255.0\npush \"route 192.168.7.0 255.255.255.0\"\n")
    conf = folder / "server.conf"
    conf.write_text(f"""\
port 1194
proto udp6
dev tun
ca {folder}/pki/ca.crt
cert {folder}/pki/issued/server.crt
key {folder}/pki/private/server.key
crl-verify {folder}/pki/crl.pem
dh none
topology subnet
server 10.8.0.0 255.255.255.0
server-ipv6 fd00:10:8::/64
ifconfig-pool-persist {folder}/ipp.txt
client-config-dir {folder}/ccd
client-to-client
keepalive 10 120
tls-auth {folder}/ta.key 0
cipher AES-256-GCM
user nobody
group nogroup
persist-key
persist-tun
status {folder}/openvpn-status.log
verb 3
explicit-exit-notify 1
""")
    profile = t.write("laptop.ovpn", f"""\
client
dev tun
proto udp
remote {t.net.server.v4} 1194
nobind
persist-key
persist-tun
ca {folder}/pki/ca.crt
cert {folder}/pki/issued/laptop.crt
key {folder}/pki/private/laptop.key
tls-auth {folder}/ta.key 1
remote-cert-tls server
cipher AES-256-GCM
verb 3
""")
    old = t.process(t.net.server.inside("openvpn", "--config", conf), "openvpn")
    old.expect("Initialization Sequence Completed")
    client = Client(t, t.net.clients[0], "laptop", Wrap("none", t.shared), profile=profile)
    client.start()
    client.wait_up()
    before = tunnel_addresses(client.host)
    t.ping(client.host, "10.8.0.1")
    mark = client.process.mark()
    checking, _, starting = lines("Moving from OpenVPN")
    arguments = {line: [conf if word.startswith("/etc/") else word for word in shlex.split(line)[1:]] for line in (checking, starting)}
    t.sixgate(*arguments[checking], host=t.net.server)
    old.stop()
    new = t.process(t.net.server.inside(SIXGATE, *arguments[starting]), "sixgate")
    new.expect("running: ")
    client.wait_up_again(mark)
    for address in ("10.8.0.1", "fd00:10:8::1"):
        t.ping(client.host, address)
    if tunnel_addresses(client.host) != before or before[0] != "10.8.0.50":
        raise Failure(f"{before} before, {tunnel_addresses(client.host)} after")
    if "192.168.7.0/24" not in client.host.run("ip", "route").stdout:
        raise Failure("no route from the client's file")
