"""OpenVPN clients of other ages, taken from other Debian releases.

bullseye has 2.5: keys by the old PRF, exit notification inside the data channel, no stateless
opening with tls-crypt-v2, PUSH_REQUEST before PUSH_REPLY. sid has 2.7, which brings epoch keys; sid
changes every day, so its cases run only when they are asked for (`tests/run interop versions.sid`).
"""

from liveness import client_moves_and_then_renegotiates, client_says_goodbye, server_killed_and_started_again, server_says_goodbye
from renegotiation import SIDES, under_ping
from traffic import iperf_over_ipv6_transport, two_clients_and_each_other

from lib.case import add
from lib.peers import Wrap


def wrapped(wrap: str, version: str, transport: int):
    def run(t):
        t.server(wrap=wrap)
        client = t.client(f"tls-version-max {version}", wrap=wrap, transport=transport)
        t.ping_server(client)
    return run


def with_suite(suite: str, function):
    def run(t):
        t.suite = suite
        function(t)
    return run


def register(suite: str, asked: bool) -> None:
    cases = [(f"{wrap}.tls{version}".lower(), wrapped(wrap, version, transport), 1)
             for wrap in Wrap.NAMES for version, transport in (("1.2", 4), ("1.3", 6))]
    cases += [
        ("client-says-goodbye", client_says_goodbye, 2),
        ("server-says-goodbye", server_says_goodbye(1), 1),
        ("server-killed-and-started-again", server_killed_and_started_again, 1),
        ("client-moves-and-then-renegotiates", client_moves_and_then_renegotiates, 1),
        ("two-clients-and-each-other", two_clients_and_each_other, 2),
        ("iperf-over-ipv6-transport", iperf_over_ipv6_transport, 1),
        ("renegotiation-started-by-both.tls-crypt-v2", under_ping("tls-crypt-v2", "1.3", *SIDES["both"]), 1),
        ("renegotiation-started-by-server.none", under_ping("none", "1.2", *SIDES["server"]), 1),
    ]
    for name, function, clients in cases:
        add("versions", f"{suite}.{name}", with_suite(suite, function), clients=clients, asked=asked)


register("bullseye", asked=False)
register("sid", asked=True)
