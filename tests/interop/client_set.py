"""`sixgate client set`: fixed addresses and networks behind a client, all lines in one go, on a live server."""

from addresses import routes
from lib.case import case
from lib.case import tunnel_addresses as addresses_now
from lib.process import Failure, until
from up import Up


def tunnel_addresses(host) -> tuple:
    """None while the device is gone for a moment."""
    try:
        return addresses_now(host)
    except Failure:
        return None, None


def profiles(t, server, *names: str) -> list:
    for name in names:
        server.command("client", "add", name, "--out", t.dir / f"{name}.ovpn")
    return [t.dir / f"{name}.ovpn" for name in names]


@case(clients=2, own=True)
def addresses_and_networks_on_a_live_server(t):
    server = Up(t)
    site, phone = profiles(t, server, "site", "phone")
    one, two = server.client(site, number=1), server.client(phone, number=2)
    stable = tunnel_addresses(t.net.server)[1].rsplit("::", 1)[0]
    # Somebody else's file, addresses alone: the other client does not notice.
    mark_one, up_two = one.process.mark(), two.process.count(two.UP)
    done = server.command("client", "set", "site", "ipv4=10.8.0.77", "ip6-host=::77")
    if "has taken it over" not in done.stdout:
        raise Failure(done.stdout)
    one.wait_up_again(mark_one)
    until(lambda: tunnel_addresses(one.host) == ("10.8.0.77", f"{stable}::77"), "no new addresses")
    if two.process.count(two.UP) != up_two:
        raise Failure("the other client started over")
    # Networks behind it: iroute, the kernel's route and everybody's, in both families.
    mark_one, mark_two = one.process.mark(), two.process.mark()
    server.command("client", "set", "site", "networks=192.168.50.0/24,fd00:50::/64")
    one.wait_up_again(mark_one)
    two.wait_up_again(mark_two)
    one.host.ip("addr add 192.168.50.1/24 dev lo", "addr add fd00:50::1/64 dev lo nodad")
    for family, net in ((4, "192.168.50.0/24"), (6, "fd00:50::/64")):
        if routes(t.net.server, family).get(net, {}).get("dev") != "tun0":
            raise Failure(f"the server's kernel has no route to {net}")
        if routes(two.host, family).get(net, {}).get("dev") != "tun0":
            raise Failure(f"the other client has no route to {net}")
        if routes(one.host, family).get(net, {}).get("dev") == "tun0":
            raise Failure(f"{net} was pushed to the client it is behind")
    for address in ("192.168.50.1", "fd00:50::1"):
        t.until_ping(t.net.server, address)
    # From one client to the other it goes through the kernel here.
    t.net.server.run("sysctl", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for address in ("192.168.50.1", "fd00:50::1", "10.8.0.77", f"{stable}::77"):
        t.until_ping(two.host, address)
    # And all of it away again.
    server.command("client", "set", "site", "ipv4=", "ip6-host=", "networks=")
    if (server.state / "ccd" / "site").exists():
        raise Failure("an empty file stays")
    until(lambda: "192.168.50.0/24" not in routes(t.net.server), "the route stays")
    until(lambda: tunnel_addresses(one.host)[0] not in (None, "10.8.0.77"), "the address stays")
    server.process.expect("connected as peer")
    if server.process.seen("panicked"):
        raise Failure("panicked")


@case(own=True)
def mistakes_and_conflicts_change_nothing(t):
    server = Up(t)
    profiles(t, server, "laptop", "phone")
    server.command("client", "set", "laptop", "ipv4=10.8.0.20", "ip6-host=20", "networks=192.168.50.0/24")
    t.net.server.ip("addr add 192.168.60.1/24 dev eth0")
    for wish, expected in (
            ("ipv4=10.8.0.20", "10.8.0.20/32 belongs to the client laptop already"),
            ("ip6-host=::20", "belongs to the client laptop already"),
            ("networks=192.168.50.0/24", "192.168.50.0/24 belongs to the client laptop already"),
            ("networks=192.168.60.128/25", "overlaps with 192.168.60.0/24, which this host has itself"),
            ("networks=203.0.113.0/24", "which this host has itself"),
            ("networks=10.8.0.0/24", "overlaps with the tunnel's own"),
            ("ipv4=10.8.0.1", "the server's own address"),
            ("colour=red", "give one or more of"),
    ):
        done = server.command("client", "set", "phone", wish, check=False)
        if done.returncode == 0 or expected not in done.stdout:
            raise Failure(f"{wish}: [{done.returncode}] {done.stdout}")
    if (server.state / "ccd" / "phone").exists():
        raise Failure("a file was written")
    done = server.command("client", "set", "fone", "ipv4=10.8.0.21", check=False)
    if "there is no client fone: `sixgate client add fone` makes it" not in done.stdout:
        raise Failure(done.stdout)
    # Its own again is no conflict; without a server it is for the next start.
    server.command("client", "set", "laptop", "ipv4=10.8.0.20")
    server.stop()
    done = server.command("client", "set", "phone", "ipv4=10.8.0.21")
    if "no server is running" not in done.stdout:
        raise Failure(done.stdout)
    server.start()
    client = server.client(t.dir / "phone.ovpn")
    if tunnel_addresses(client.host)[0] != "10.8.0.21":
        raise Failure(f"{tunnel_addresses(client.host)}")
