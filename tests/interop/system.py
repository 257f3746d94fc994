"""The package on a whole router (lib/machine.py), serving stock clients: MIPS little-endian, a real
kernel's device and offloads, OpenWrt's init script, memory as it is there."""

import calendar
import re

from lib.case import case, tunnel_addresses
from lib.machine import Machine
from lib.peers import Client, Wrap
from lib.process import Failure

CONFIG = """
config server 'server'
	option endpoint '203.0.113.1'
	option network 'auto'
	option network6 'auto'
	list access 'router'
	list access 'lan'
	list reachable_from 'lan'
config client
	option name 'phone'
	option ipv6 '::77'
	list network '192.168.50.0/24'
"""

# What a running server may need, in KiB: all that the kernel counts for it. The program's file is in memory as a
# whole there (RssShmem), as it is on a router once its pages were used. The goal, 4096, is reached; this is what there
# is, and a little for a program that grows.
MEMORY_KIB, MEMORY_PER_CLIENT_KIB = 2816, 24


def profile_client(t, router: Machine, name: str, number: int) -> Client:
    """A stock client with the profile that the router made."""
    profile = t.write(f"{name}.ovpn", router.run(f"cat /etc/sixgate/clients/{name}.ovpn"))
    client = Client(t, t.net.clients[number - 1], name, Wrap("none", t.shared), profile=profile)
    client.start()
    client.wait_up(timeout=90)
    return client


def transfer(t, router: Machine, client: Client, address: str, mebibytes: int) -> None:
    """TCP to the router and back, all of it arriving."""
    size = mebibytes << 20
    router.run(f"head -c {size} /dev/zero >/tmp/back; (nc -l -p 5001 | wc -c >/tmp/received; "
               "nc -l -p 5002 </tmp/back >/dev/null) >/dev/null 2>&1 &")
    talk = ("import socket,sys,time\n"
            "def connect(port):\n"
            "    for left in range(100, -1, -1):\n"
            "        try: return socket.create_connection((sys.argv[1], port), 60)\n"
            "        except ConnectionRefusedError:\n"
            "            if not left: raise\n"
            "            time.sleep(0.1)\n"
            "out = connect(5001); out.sendall(bytes(int(sys.argv[2]))); out.close()\n"
            "back = connect(5002); got = 0\n"
            "while data := back.recv(65536): got += len(data)\n"
            "print(got)\n")
    back = client.host.run("python3", "-c", talk, address, size, timeout=180).stdout.strip()
    there = router.run("cat /tmp/received").strip()
    if (there, back) != (str(size), str(size)):
        raise Failure(f"of {size} bytes {there} arrived there and {back} back")


# Only when asked for: these need what `tests/run system` prepares.
@case(clients=2, alone=True, own=True, asked=True)
def serves_stock_clients(t):
    router = Machine(t, CONFIG)
    router.run("service sixgate start")
    router.process.expect("running: sixgate0", timeout=60)
    t.ping(t.net.clients[0], "203.0.113.1")
    clients = [profile_client(t, router, name, number) for number, name in enumerate(("phone", "client1"), 1)]
    text = router.run("ip addr show dev sixgate0")
    addresses = [re.search(rf"{word} ([0-9a-f.:]+)/\d+ scope global", text)[1] for word in ("inet", "inet6")]
    own6 = tunnel_addresses(clients[0].host)[1]
    if not own6.endswith("::77"):
        raise Failure(f"phone has {own6}, not ::77")
    for client in clients:
        for address in addresses:
            t.ping(client.host, address)
            t.ping(client.host, address, size=1400, count=2)
    for address in addresses:
        transfer(t, router, clients[0], address, mebibytes=1)
    status = router.run("service sixgate status")
    for name in ("phone", "client1"):
        if f"client '{name}' from 203.0.113." not in status:
            raise Failure(f"{name} is not in the status:\n{status}")
    offload = re.search(r"^offload tun (.*) udp (.*)$", status, re.M)
    if not offload or "off" in offload[0].split():
        raise Failure(f"the kernel can, and we do not: {offload and offload[0]}\n{status}")
    if "system call filter on\n" not in status:
        raise Failure(f"no filter of system calls\n{status}")
    if "route" not in router.run("ip route show 192.168.50.0/24 | sed 's/^/route /'"):
        raise Failure("no route to phone's network")
    # One more client: procd is told, the server reads, and the tunnels of the others stay.
    marks = [client.process.mark() for client in clients]
    router.run("printf 'config client\n\toption name tablet\n\toption ipv6 ::78\n' >>/etc/config/sixgate; service sixgate reload")
    router.process.expect("the new configuration is in force", timeout=60)
    router.run("service sixgate reload")
    for client, mark in zip(clients, marks):
        t.ping(client.host, addresses[0], count=5)
        if client.process.seen(client.UP + "|SIGUSR1|SIGTERM", after=mark):
            raise Failure(f"{client.name}'s tunnel did not stay")
    if router.process.count("reading the configuration again") != 1:
        raise Failure("a reload without a change reached the server")
    router.run("test -s /etc/sixgate/clients/tablet.ovpn && grep '::78' /var/etc/sixgate/ccd/tablet")
    if "pid" not in (after := router.run("service sixgate status")) or "clients 2" not in after:
        raise Failure(after)
    flash = router.run("find /etc/sixgate ! -type d ! -type f")
    if flash:
        raise Failure(f"not for flash: {flash}")
    memory = router.memory()
    limit = MEMORY_KIB + MEMORY_PER_CLIENT_KIB * len(clients)
    print(f"        memory of the server with {len(clients)} clients: {memory['VmRSS']} KiB resident, limit {limit}: "
          + ", ".join(f"{name} {memory[name]}" for name in ("RssAnon", "RssFile", "RssShmem")))
    if memory["VmRSS"] > limit:
        raise Failure(f"the server has {memory['VmRSS']} KiB, {limit} is the limit")
    router.run("service sixgate stop")
    for client in clients:
        client.process.expect("(?i)server.*(exit|restart)|SIGUSR1|SIGTERM", timeout=30)


@case(clients=2, alone=True, own=True, asked=True)
def a_clock_beyond_2038(t):
    """Where 32 bits of seconds end, which a clock that is set wrong gets to any day; then it is set right."""
    router = Machine(t, CONFIG)
    router.run("service sixgate start")
    router.process.expect("running: sixgate0", timeout=60)
    address = re.search(r"inet6 ([0-9a-f:]+)/\d+ scope global", router.run("ip addr show dev sixgate0"))[1]
    phone = profile_client(t, router, "phone", 1)
    mark, other = phone.process.mark(), None
    for year in (2042, 2026):
        # The third of March, at noon.
        router.run(f"set_clock {calendar.timegm((year, 3, 3, 12, 0, 0))}")
        t.ping(phone.host, address)
        if other:
            other.stop()
        else:
            # The certificates of today have expired.
            router.run("sixgate client add tablet --dir /etc/sixgate")
        other = profile_client(t, router, "tablet", 2)
        t.ping(other.host, address)
        router.process.expect(f"{year}-03-03 12:.*tablet")
        status = router.run("service sixgate status")
        if not re.search(rf"client 'tablet' from \S+ .*since {year}-03-03", status):
            raise Failure(status)
    if phone.process.seen(phone.UP + "|SIGUSR1|SIGTERM", after=mark):
        raise Failure("the tunnel did not stay")
