"""What scripts of our client are told, against what a stock client tells them."""

from hooks import calls, notes, script
from lib.case import SIXGATE, add
from lib.peers import Client, Wrap
from lib.process import Failure

KINDS = ("tls-verify", "ipchange", "up", "route-up", "route-pre-down", "down")

# What differs between two runs, or between the two programs by what they are.
INCIDENTAL = {
    # The shell's own, process ids and times, source ports.
    "PWD", "_", "SHLVL", "daemon_pid", "daemon_start_time", "trusted_port", "untrusted_port",
    # The log.
    "daemon_log_redirect", "verb",
    # A stock client names the next hop towards the server, which is the server itself when it is near,
    # and only where there are IPv6 routes.
    "net_gateway_ipv6",
}


def observe(t, stock: bool, lines: list[str], transport: int, keys: int) -> dict[str, list]:
    """Lets a client of this kind come, use so many keys and go, and returns what each of its scripts saw."""
    before, t.stock = t.stock, stock
    try:
        note, folder = notes(t)
        client = Client(t, t.net.clients[0], "client1", Wrap("tls-crypt", t.shared), transport=transport,
                        lines=["script-security 2", *[f"{kind} {note}" for kind in KINDS], *lines])
        if stock:
            client.start()
        else:
            client.process = t.process(client.host.inside(SIXGATE, "run", client.config), "client1")
        calls(folder, "route-up", timeout=20)
        for address in ("10.8.0.1", "fd00:10:8::1"):
            t.until_ping(client.host, address)
        # The authority and the server.
        calls(folder, "tls-verify", 2 * keys, timeout=20)
        client.process.stop()
        calls(folder, "down")
        return {file.name: calls(folder, file.name) for file in folder.iterdir()}
    finally:
        t.stock = before


def differences(kind: str, theirs: list, ours: list) -> list[str]:
    """Arguments and variables that are missing, other, or ours only."""
    found = []
    if len(theirs) != len(ours):
        return [f"{kind}: called {len(theirs)} times by the stock client, {len(ours)} times by ours"]
    for (stock_arguments, stock), (own_arguments, own) in zip(theirs, ours):
        if kind == "ipchange":
            found += [] if " ".join(stock_arguments) == " ".join(own_arguments) else [f"{kind}: arguments {stock_arguments}, ours {own_arguments}"]
            continue
        if stock_arguments != own_arguments:
            found.append(f"{kind}: arguments {stock_arguments}, ours {own_arguments}")
        for name in sorted(set(stock) | set(own)):
            # Ours says DNS in both ways, however it came, and what is redirected, as 2.7 does.
            if name.startswith(("dns_", "route_redirect_gateway_")) and name not in stock:
                continue
            # Ours has its device before it connects.
            if kind == "tls-verify" and name in ("dev", "dev_type", "script_context") and name not in stock:
                continue
            if name not in INCIDENTAL and stock.get(name) != own.get(name):
                found.append(f"{kind}: {name} is {stock.get(name)!r}, ours {own.get(name)!r}")
    return found


def compared(lines: list[str], pushed: list[str], transport: int, keys: int = 1):
    def run(t):
        host = t.net.clients[0]
        host.ip(f"route add default via {t.net.server.v4}", f"route add default via {t.net.server.v6} metric 1024")
        t.stock = True
        t.server(*[f'push "{line}"' for line in pushed])
        stock, ours = (observe(t, stock, lines, transport, keys) for stock in (True, False))
        found = [f"{sorted(stock)} are called by the stock client, {sorted(ours)} by ours"] if set(stock) != set(ours) else []
        for kind in sorted(set(stock) & set(ours)):
            found += differences(kind, stock[kind], ours[kind])
        if found:
            raise Failure("\n".join(found))
    return run


LINES = ["setenv FOO bar", "route 10.66.0.0 255.255.0.0 vpn_gateway 9", "route 10.67.0.0 255.255.0.0 net_gateway", "route-ipv6 fd66::/48 fd00:10:8::1 7"]
PUSHED = ["route 10.55.0.0 255.255.0.0", "route-ipv6 fd55::/48", "dhcp-option DNS 10.8.0.1", "dhcp-option DNS6 fd00:10:8::1",
          "dhcp-option DOMAIN lan.example", "setenv-safe SAFE 1"]
add("client-env", "routes-and-dns.udp4", compared(LINES, PUSHED, 4), own=True)
add("client-env", "routes-and-dns.udp6", compared(LINES, PUSHED, 6), own=True)
add("client-env", "redirect-gateway.udp4", compared([], ["redirect-gateway def1 ipv6", "dns server 1 address fd00:10:8::1 10.8.0.1",
    "dns search-domains lan.example"], 4), own=True)
add("client-env", "net30.udp6", compared([], ["topology net30", "ifconfig 10.8.0.6 10.8.0.1", "route 10.55.0.0 255.255.0.0"], 6), own=True)
add("client-env", "renegotiation.udp4", compared([*LINES, "reneg-sec 8 8"], PUSHED, 4, keys=2), own=True)
