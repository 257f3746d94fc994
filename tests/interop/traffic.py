"""Packets of every size through the tunnel, between the server and its clients and among these."""

import time

from lib.case import case, tunnel_addresses
from lib.process import Failure, command


@case()
def iperf_to_the_server(t):
    t.server()
    client = t.client()
    for address in ("10.8.0.1", "fd00:10:8::1"):
        t.iperf(client.host, t.net.server, address)


@case()
def iperf_over_ipv6_transport(t):
    t.server()
    client = t.client(transport=6)
    for address in ("10.8.0.1", "fd00:10:8::1"):
        t.iperf(client.host, t.net.server, address)


@case()
def iperf_udp_arrives_whole(t):
    t.server()
    client = t.client()
    receiver = t.process(t.net.server.inside("iperf3", "-s", "-B", "fd00:10:8::1", "--forceflush"), "iperf3-server")
    receiver.expect("Server listening")
    # Slow enough that a busy machine drops nothing of it.
    done = client.host.run("iperf3", "-u", "-c", "fd00:10:8::1", "-b", "2M", "-l", "1200", "-t", "3", timeout=30)
    if "(0%)" not in done.stdout:
        raise Failure(f"datagrams were lost:\n{done.stdout}")


@case(clients=2)
def two_clients_and_each_other(t):
    t.server("client-to-client")
    one, two = t.client(number=1), t.client(number=2, transport=6)
    if one.v4 == two.v4 or one.v6 == two.v6:
        raise Failure(f"both clients have {one.v4} {one.v6}")
    for client in (one, two):
        t.ping_server(client)
    for a, b in ((one, two), (two, one)):
        t.ping(a.host, b.v4)
        t.ping(a.host, b.v6)
        t.ping(a.host, b.v6, size=1452)
    t.iperf(one.host, two.host, two.v4)
    t.iperf(two.host, one.host, one.v6)


@case(clients=2)
def not_each_other_without_client_to_client(t):
    t.server()
    one, two = t.client(number=1), t.client(number=2)
    t.ping_server(one)
    t.ping_server(two)
    # A namespace does not forward unless told to, so that what the server hands to its kernel ends there.
    t.no_ping(one.host, two.v4)
    t.no_ping(one.host, two.v6)


@case(clients=2)
def the_kernel_forwards_between_clients(t):
    t.server('push "route 10.8.0.0 255.255.255.0"')
    t.net.server.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    one, two = t.client(number=1), t.client(number=2)
    t.ping(one.host, two.v4)
    t.ping(one.host, two.v6)


@case()
def ipv6_only_server(t):
    t.server(v4=False)
    client = t.client(transport=6)
    t.ping(client.host, "fd00:10:8::1")
    t.ping(t.net.server, client.v6)
    t.iperf(client.host, t.net.server, "fd00:10:8::1")
    if tunnel_addresses(client.host)[0]:
        raise Failure("an IPv4 address from a server without IPv4")


@case()
def ipv4_only_server(t):
    t.server(v6=False)
    client = t.client()
    t.ping(client.host, "10.8.0.1")
    t.ping(t.net.server, client.v4)


def same_name(t):
    authority = t.shared.authority
    one = t.client(number=1)
    return one, t.client(number=2, identity=(authority.dir / "client1.key", authority.dir / "client1.crt"))


@case(clients=2)
def the_same_name_twice_with_duplicate_cn(t):
    t.server("duplicate-cn")
    one, two = same_name(t)
    if one.v4 == two.v4 or one.v6 == two.v6:
        raise Failure("two live clients share an address")
    t.ping_server(one)
    t.ping_server(two)


@case(clients=2)
def the_same_name_replaces_itself_otherwise(t):
    t.server()
    one, two = same_name(t)
    t.ping_server(two)
    t.no_ping(one.host, "fd00:10:8::1")


@case(clients=2)
def max_clients(t):
    t.server("max-clients 1")
    t.client(number=1)
    two = t.client(number=2, up=False)
    time.sleep(3)
    if two.process.seen(two.UP):
        raise Failure("a second client came in")


@case()
def a_foreign_source_address_is_dropped(t):
    server = t.server()
    client = t.client()
    watch = t.process(t.net.server.inside("tcpdump", "-n", "-l", "-i", "tun0", "icmp or icmp6"), "tcpdump")
    watch.expect("listening on")
    client.host.ip("addr add 10.8.0.77/32 dev tun0", "addr add fd00:10:8::77/128 dev tun0 nodad")
    t.no_ping(client.host, "10.8.0.1", "-I", "10.8.0.77")
    t.no_ping(client.host, "fd00:10:8::1", "-I", "fd00:10:8::77")
    client.host.ip("addr del 10.8.0.77/32 dev tun0", "addr del fd00:10:8::77/128 dev tun0")
    t.ping_server(client)
    watch.expect(r"fd00:10:8::1: ICMP6, echo request")
    if watch.seen(r"10\.8\.0\.77|fd00:10:8::77"):
        raise Failure("a packet with a source that is not the client's came through")
    server.alive()


@case()
def a_narrow_path_is_survived_by_mssfix(t):
    """The path carries 1300 bytes and nobody says so: TCP must fit by the clamped MSS alone."""
    t.server("mssfix 1280")
    client = t.client("mssfix 1280")
    # Large datagrams vanish in both directions, without an ICMP answer.
    for host in (t.net.server, client.host):
        command(*host.inside("nft", "-f", "-"), input="""
            table inet narrow {
                chain out {
                    type filter hook output priority 0;
                    oifname "eth0" udp length > 1300 drop
                }
            }\n""")
    for address in ("10.8.0.1", "fd00:10:8::1"):
        t.iperf(client.host, t.net.server, address, mebibytes=2)
