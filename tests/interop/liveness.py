"""Clients that move, servers that die, and goodbyes that are heard."""

import signal
import time

from lib.case import add, case
from lib.process import Failure


def moves(transport: int):
    def run(t):
        server = t.server(wrap="tls-crypt-v2")
        client = t.client(wrap="tls-crypt-v2", transport=transport)
        t.ping_server(client)
        ping = t.process(client.host.inside("ping", "-n", "-i", "0.1", "-c", "40", "-W", "2", "fd00:10:8::1"), "ping")
        ping.expect("icmp_seq=10 ")
        client.host.move(31)
        ping.expect("packets transmitted", timeout=15, dies=True)
        # What was on the wire at that moment may be lost with the address, but no more than that.
        lost = 40 - ping.count("bytes from")
        if lost > 5:
            raise Failure(f"{lost} of 40 echoes were lost by the move:\n{ping.text()}")
        t.ping_server(client)
        t.ping(t.net.server, client.v4)
        if client.process.count(client.UP) != 1:
            raise Failure("the client started over")
        server.alive()
    return run


for transport in (4, 6):
    add("liveness", f"client-moves-to-another-address.udp{transport}", moves(transport))


@case()
def client_moves_and_then_renegotiates(t):
    """The control channel follows the address that the data channel moved to."""
    server = t.server("reneg-sec 5")
    client = t.client("reneg-sec 0")
    client.host.move(31)
    t.ping_server(client)
    mark = client.process.mark()
    client.process.expect("Control Channel: TLSv1.3", timeout=15, after=mark)
    t.ping_server(client)
    if client.process.count(client.UP) != 1:
        raise Failure("the client started over")
    server.alive()


@case()
def server_killed_and_started_again(t):
    server = t.server("keepalive 1 4")
    client = t.client()
    t.ping_server(client)
    mark = client.process.mark()
    server.process.kill()
    server.start()
    client.wait_up_again(mark)
    t.ping_server(client)
    t.iperf(client.host, t.net.server, "fd00:10:8::1", mebibytes=2)


@case()
def client_killed_and_started_again(t):
    """Its new session takes the place of the dead one."""
    server = t.server()
    client = t.client("lport 5555")
    t.ping_server(client)
    client.process.kill()
    client.start()
    # A stock server does not push twice to one address and port within 30 s.
    client.wait_up(timeout=60 if t.stock else 10)
    t.ping_server(client)
    server.alive()


def server_says_goodbye(form: int):
    def run(t):
        server = t.server(f"explicit-exit-notify {form}")
        client = t.client()
        t.ping_server(client)
        mark = client.process.mark()
        server.process.stop(signal.SIGTERM)
        # The client comes back at once, long before any keepalive runs out.
        client.process.expect("Connection reset command was pushed by server", timeout=3, after=mark)
        server.start()
        client.wait_up_again(mark)
        t.ping_server(client)
    return run


for form in (1, 2):
    add("liveness", f"server-says-goodbye.exit-notify-{form}", server_says_goodbye(form))


@case(clients=2)
def client_says_goodbye(t):
    """With room for one client, the second comes in only because the first has taken its leave."""
    server = t.server("max-clients 1")
    client = t.client("explicit-exit-notify 2", number=1)
    t.ping_server(client)
    client.stop()
    second = t.client(number=2, up=False)
    second.wait_up(timeout=20)
    t.ping_server(second)
    server.alive()


@case()
def silent_client_is_given_up(t):
    server = t.server("keepalive 1 3")
    client = t.client()
    t.ping_server(client)
    mark = server.process.mark()
    client.process.send(signal.SIGSTOP)
    time.sleep(1)
    # Twice the pushed time: the client must notice first.
    server.expect(r"Inactivity timeout \(--ping-restart\)", r"(?i)client1.*(timeout|silent|nothing heard)", timeout=15, after=mark)
    client.process.kill()
    server.alive()


@case()
def an_idle_tunnel_stays_up(t):
    """Pings in both directions are all the traffic there is."""
    server = t.server("keepalive 1 3")
    client = t.client()
    time.sleep(12)
    if client.process.count(client.UP) != 1 or client.process.seen("Inactivity timeout"):
        raise Failure("the client started over")
    t.ping_server(client)
    server.alive()
