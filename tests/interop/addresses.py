"""Addresses, routes and per-client files, each with a stock client that has to live with them.

A stock server passes most of these too: what it does is what is expected. The others are about what
only sixgate has.
"""

import json

from hooks import calls, notes

from lib.case import add, case, tunnel_addresses
from lib.process import Failure


def client_files(t, **files: str) -> str:
    """A `client-config-dir` with these files, as the line for it."""
    folder = t.dir / "ccd"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return f"client-config-dir {folder}"


def routes(host, family: int = 4) -> dict[str, dict]:
    """The routing table by destination."""
    return {route["dst"]: route for route in json.loads(host.run("ip", "-j", f"-{family}", "route").stdout)}


def expect_addresses(client, v4: str | None, v6: str | None) -> None:
    found = tunnel_addresses(client.host)
    if found != (v4, v6):
        raise Failure(f"{client.name} has {found}, not {(v4, v6)}")


# ---- Per-client files -----------------------------------------------------------------------------

@case(clients=2)
def fixed_addresses(t):
    t.server(client_files(t, client1="ifconfig-push 10.8.0.50 255.255.255.0\nifconfig-ipv6-push fd00:10:8::50/64\n"))
    one, two = t.client(number=1), t.client(number=2, transport=6)
    expect_addresses(one, "10.8.0.50", "fd00:10:8::50")
    for client in (one, two):
        t.ping_server(client)
        t.ping(t.net.server, client.v4)
        t.ping(t.net.server, client.v6)


@case(own=True)
def a_fixed_address_of_one_family_does_not_cost_the_other(t):
    t.server(client_files(t, client1="ifconfig-push 10.8.0.50 255.255.255.0\n"))
    client = t.client()
    expect_addresses(client, "10.8.0.50", "fd00:10:8::1000")
    t.ping_server(client)


@case(clients=2)
def networks_behind_a_client(t):
    """A LAN behind the first client is reached from the server and from the second client."""
    lines = client_files(t, client1="iroute 192.168.7.0 255.255.255.0\niroute-ipv6 fd00:7::/64\n")
    server = t.server(lines, "client-to-client", "route 192.168.7.0 255.255.255.0", "route-ipv6 fd00:7::/64",
                      'push "route 192.168.7.0 255.255.255.0"', 'push "route-ipv6 fd00:7::/64"')
    one, two = t.client(number=1), t.client(number=2, transport=6)
    one.host.ip("addr add 192.168.7.1/24 dev lo", "addr add fd00:7::1/64 dev lo nodad")
    for address in ("192.168.7.1", "fd00:7::1"):
        t.ping(t.net.server, address)
        t.ping(two.host, address)
    for family, net in ((4, "192.168.7.0/24"), (6, "fd00:7::/64")):
        if routes(one.host, family).get(net, {}).get("dev") == "tun0":
            raise Failure(f"{net} was pushed to the client it is behind")
    server.alive()


@case(clients=2)
def pushes_differ_by_client(t):
    lines = client_files(t, client1='push-remove "route 10.66"\npush "route 10.77.0.0 255.255.0.0"\n',
                         DEFAULT='push "route 10.88.0.0 255.255.0.0"\n')
    t.server(lines, 'push "route 10.66.0.0 255.255.0.0"')
    one, two = t.client(number=1), t.client(number=2)
    for client, wanted in ((one, {"10.77.0.0/16"}), (two, {"10.66.0.0/16", "10.88.0.0/16"})):
        found = {net for net in routes(client.host) if net.startswith("10.") and net != "10.8.0.0/24"}
        if found != wanted:
            raise Failure(f"{client.name} has routes {found}, not {wanted}")
        t.ping_server(client)


@case(clients=2)
def a_list_of_ones_own(t):
    """After push-reset only what the file says is pushed, and what is made for each client."""
    lines = client_files(t, client1='push-reset\npush "topology subnet"\npush "route-gateway 10.8.0.1"\n')
    t.server(lines, 'push "route 10.66.0.0 255.255.0.0"')
    one, two = t.client(number=1), t.client(number=2)
    for client, expected in ((one, False), (two, True)):
        if ("10.66.0.0/16" in routes(client.host)) != expected:
            raise Failure(f"{client.name}: {routes(client.host)}")
        t.ping_server(client)


def kept_out(t, server, stock: str, sixgate: str) -> None:
    """The first client does not come in, and the log says this; the second one does."""
    first = t.client(number=1, up=False)
    first.process.expect("AUTH_FAILED|auth-failure", dies=True)
    server.expect(stock, sixgate)
    first.process.kill()
    t.ping_server(t.client(number=2))
    server.alive()


@case(clients=2)
def a_disabled_client(t):
    server = t.server(client_files(t, client1="disable\n"))
    kept_out(t, server, "client has been rejected due to 'disable' directive", "disabled")


@case(clients=2)
def only_clients_with_a_file(t):
    server = t.server(client_files(t, client2="", DEFAULT=""), "ccd-exclusive")
    kept_out(t, server, "client-config-dir authentication", "ccd-exclusive")


@case(clients=2, own=True)
def a_file_with_a_mistake_keeps_its_client_out(t):
    server = t.server(client_files(t, client1="# fine\nirout 192.168.7.0 255.255.255.0\n"))
    kept_out(t, server, "", r"ccd/client1:2: unknown directive `irout`; did you mean `iroute`\?; 'client1' is kept out")


# ---- Ways to give addresses -----------------------------------------------------------------------

def topology(name: str, addresses: tuple[str, str], peer: str | None):
    def run(t):
        t.server(f"topology {name}")
        one, two = t.client(number=1), t.client(number=2, transport=6)
        for client, address in zip((one, two), addresses):
            expect_addresses(client, address, client.v6)
            t.ping_server(client)
            t.ping(t.net.server, client.v4)
        info = json.loads(t.net.server.run("ip", "-j", "-4", "addr", "show", "dev", "tun0").stdout)[0]["addr_info"][0]
        if (info["local"], info.get("address")) != ("10.8.0.1", peer):
            raise Failure(f"the server has {info}")
        found = routes(t.net.server).get("10.8.0.0/24", {})
        if found.get("dev") != "tun0":
            raise Failure(f"the server reaches its clients by {found}")
    add(__name__, f"topology-{name}", run, clients=2)


topology("subnet", ("10.8.0.2", "10.8.0.3"), None)
topology("net30", ("10.8.0.6", "10.8.0.10"), "10.8.0.2")
topology("p2p", ("10.8.0.4", "10.8.0.5"), "10.8.0.2")


def prefix(bits: int, first: str, own: bool):
    def run(t):
        t.server(f"server-ipv6 fd00:10:8::/{bits}", v6=False)
        client = t.client()
        expect_addresses(client, "10.8.0.2", first)
        t.ping_server(client)
        t.ping(t.net.server, client.v6)
    add(__name__, f"server-ipv6-{bits}", run, own=own)


# Stock servers take nothing shorter than a /64.
prefix(48, "fd00:10:8::1000", True)
prefix(96, "fd00:10:8::1000", False)
prefix(112, "fd00:10:8::2", False)
prefix(124, "fd00:10:8::2", False)


@case(own=True)
def a_wide_prefix_is_reached_as_a_whole(t):
    """Clients take a /64 of it as their link, and the rest as a route."""
    t.server("server-ipv6 fd00:10:8::/48", v6=False)
    client = t.client()
    t.net.server.ip("addr add fd00:10:8:9::1/128 dev lo")
    t.ping(client.host, "fd00:10:8:9::1")


@case(clients=2)
def addresses_one_by_one(t):
    t.server("mode server", "tls-server", "ifconfig 10.8.0.1 255.255.255.0", "ifconfig-pool 10.8.0.100 10.8.0.110",
             "ifconfig-ipv6 fd00:10:8::1/64 fd00:10:8::2", "ifconfig-ipv6-pool fd00:10:8::5000/64",
             'push "topology subnet"', 'push "route-gateway 10.8.0.1"', v4=False, v6=False)
    one, two = t.client(number=1), t.client(number=2, transport=6)
    expect_addresses(one, "10.8.0.100", "fd00:10:8::5000")
    expect_addresses(two, "10.8.0.101", "fd00:10:8::5001")
    for client in (one, two):
        t.ping_server(client)


@case(clients=2, own=True)
def a_full_pool_costs_only_its_own_family(t):
    t.server("ifconfig-pool 10.8.0.9 10.8.0.9")
    one, two = t.client(number=1), t.client(number=2)
    expect_addresses(one, "10.8.0.9", "fd00:10:8::1000")
    expect_addresses(two, None, "fd00:10:8::1001")
    t.ping(two.host, "fd00:10:8::1")


# ---- The server's own routes ----------------------------------------------------------------------

@case()
def routes_come_and_go_with_the_server(t):
    host = t.net.server
    before = host.run("ip", "route").stdout + host.run("ip", "-6", "route").stdout
    router = t.net.clients[0].v4
    server = t.server("route 192.168.7.0 255.255.255.0", "route 192.168.8.0 255.255.255.0 default 77",
                      f"route 192.168.9.0 255.255.255.0 {router} 88", "route-ipv6 fd00:7::/64",
                      "route-ipv6 fd00:8::/64 fd00:10:8::2 99")
    server.process.expect("Initialization Sequence Completed|running: ")
    for family, net, device, metric in (
            (4, "192.168.7.0/24", "tun0", None), (4, "192.168.8.0/24", "tun0", 77), (4, "192.168.9.0/24", "eth0", 88),
            (6, "fd00:7::/64", "tun0", None), (6, "fd00:8::/64", "tun0", 99)):
        route = routes(host, family).get(net)
        if not route or route["dev"] != device or (metric and route["metric"] != metric):
            raise Failure(f"{net}: {route}")
    if routes(host)["192.168.9.0/24"].get("gateway") != router:
        raise Failure("not by its router")
    server.process.stop()
    after = host.run("ip", "route").stdout + host.run("ip", "-6", "route").stdout
    if before != after:
        raise Failure(f"routes stay behind:\n{after}\nbefore:\n{before}")


# ---- Mistakes that are named ----------------------------------------------------------------------

@case(own=True)
def check_names_common_mistakes(t):
    ccd = client_files(t, a="iroute-ipv6 fd00:7::/64\nifconfig-push 10.8.0.9 255.255.255.0\n",
                       b="ifconfig-push 10.8.0.9 255.255.255.0\n", c="bad\n")
    server = t.server(ccd, "ifconfig-ipv6-pool fd00:99::5/64", "route 203.0.113.0 255.255.255.0", start=False)
    said = t.sixgate("check", server.config, host=t.net.server).stdout
    for expected in ("ccd/a:1: `iroute-ipv6`: nothing routes fd00:7::/64 into the tunnel",
                     "10.8.0.9/32 is claimed by both a and b", "ccd/c:1: unknown directive `bad`",
                     "IPv4 forwarding is off", "IPv6 forwarding is off", "reaches beyond our prefix fd00:10:8::/64",
                     "203.0.113.0/24 of the tunnel overlaps with 203.0.113.0/24"):
        if expected not in said:
            raise Failure(f"not said: {expected}\n{said}")
    # The start says the same.
    server.start()
    server.process.expect("IPv6 forwarding is off")
    server.process.expect("10.8.0.9/32 is claimed by both a and b")


@case(own=True)
def pushes_are_quoted_as_by_a_stock_server(t):
    """Word by word, and what a stock client's scripts make of it."""
    lines = [
        r'push "setenv-safe A \"1 2\""', "push 'setenv-safe B \"3 4\"'", "push \"setenv-safe C '5 6'\"", r"push setenv-safe\ D\ 7",
        r'push "setenv-safe E \"8\\\\9\""', 'push "setenv-safe F   1"', 'push "route 10.66.0.0 255.255.0.0"', "push 'route-ipv6 fd66::/48'",
        r'push "dhcp-option DOMAIN \"lan.example\""',
    ]
    seen = []
    for t.stock in (True, False):
        note, folder = notes(t)
        server = t.server(*lines)
        client = t.client("script-security 2", f"route-up {note}")
        reply = client.process.expect(r"PUSH: Received control message: 'PUSH_REPLY,(.*)'")[1]
        [(_, variables)] = calls(folder, "route-up")
        texts = sorted(option for option in reply.split(",") if option.startswith(("setenv-safe", "route 10.66", "route-ipv6 fd66", "dhcp")))
        seen.append((texts, {name: value for name, value in variables.items() if name.startswith(("OPENVPN_", "foreign_option"))}))
        client.stop()
        server.process.stop()
    if seen[0] != seen[1] or len(seen[0][0]) != len(lines):
        raise Failure(f"a stock server: {seen[0]}\nours: {seen[1]}")
