"""The server that needs no configuration, and the profiles it hands out, used as they are."""

import time

from lib.case import SIXGATE, case, tunnel_addresses
from lib.peers import Client, Wrap
from lib.process import Failure

ENDPOINT = "203.0.113.1"


class Up:
    """`sixgate up` in the server's namespace, with a state folder of the case's own."""

    def __init__(self, t, endpoint: str = ENDPOINT):
        self.t = t
        self.state = t.dir / "state"
        self.endpoint = endpoint
        self.start()

    def start(self) -> None:
        self.process = self.t.process(
            self.t.net.server.inside(SIXGATE, "up", "--dir", self.state, "--endpoint", self.endpoint), "server")
        self.process.expect("running: ")

    def stop(self) -> None:
        self.process.stop()

    def command(self, *args, check: bool = True):
        return self.t.sixgate(*args, "--dir", self.state, host=self.t.net.server, check=check)

    def client(self, profile, number: int = 1, up: bool = True) -> Client:
        host = self.t.net.clients[number - 1]
        client = Client(self.t, host, f"client{number}", Wrap("none", self.t.shared), profile=profile)
        client.start()
        if up:
            client.wait_up()
        return client

    def ping(self, client: Client) -> None:
        for server, own in zip(tunnel_addresses(self.t.net.server), tunnel_addresses(client.host)):
            self.t.ping(client.host, server)
            self.t.ping(self.t.net.server, own)


@case(own=True)
def first_client_and_a_second_start(t):
    server = Up(t)
    profile = server.state / "clients" / "client1.ovpn"
    before = {path: path.read_bytes() for path in server.state.rglob("*") if path.is_file()}
    client = server.client(profile)
    server.ping(client)
    addresses = tunnel_addresses(t.net.server)
    t.iperf(client.host, t.net.server, addresses[1], mebibytes=4)
    mark = client.process.mark()
    server.stop()
    server.start()
    if tunnel_addresses(t.net.server) != addresses:
        raise Failure(f"other addresses after the second start: {addresses}, {tunnel_addresses(t.net.server)}")
    changed = [path.name for path, text in before.items() if not path.exists() or path.read_bytes() != text]
    if changed:
        raise Failure(f"the second start changed {changed}")
    client.wait_up_again(mark)
    server.ping(client)


@case(own=True)
def an_ipv6_endpoint(t):
    server = Up(t, endpoint="[2001:db8:6::1]:1194")
    server.ping(server.client(server.state / "clients" / "client1.ovpn"))


@case(clients=2, own=True)
def add_a_client_and_revoke_it(t):
    server = Up(t)
    profile = t.dir / "laptop.ovpn"
    server.command("client", "add", "laptop", "--out", profile)
    first = server.client(server.state / "clients" / "client1.ovpn", number=1)
    laptop = server.client(profile, number=2)
    server.ping(first)
    server.ping(laptop)
    if "laptop" not in server.command("client", "list").stdout or "laptop" not in server.command("status").stdout:
        raise Failure("laptop is in neither list nor status")
    mark = laptop.process.mark()
    done = server.command("client", "revoke", "laptop")
    if "1 connection ended" not in done.stdout:
        raise Failure(done.stdout)
    address = tunnel_addresses(t.net.server)[1]
    t.no_ping(laptop.host, address)
    server.process.expect("(?i)laptop.*revoked")
    time.sleep(3)
    if laptop.process.seen(laptop.UP, after=mark):
        raise Failure("the revoked client came back")
    laptop.process.kill()
    server.ping(first)
    # Nor after a new start of the server.
    server.stop()
    server.start()
    again = server.client(profile, number=2, up=False)
    server.process.expect("(?i)laptop.*revoked")
    time.sleep(2)
    if again.process.seen(again.UP):
        raise Failure("the revoked client came back after a new start")


@case(own=True)
def without_an_endpoint_it_says_what_to_fill_in(t):
    process = t.process(t.net.server.inside(SIXGATE, "up", "--dir", t.dir / "state"), "server")
    process.expect("running: ")
    if not process.seen("(?i)--endpoint"):
        raise Failure("not a word about --endpoint")
