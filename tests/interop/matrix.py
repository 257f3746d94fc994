"""The matrix: both roles, every OpenVPN generation, every wrapping, every data cipher, both families.

Each cell is a whole life: both families ping from both ends, 10 MB of TCP each way, a
renegotiation, more TCP over the other family, and goodbyes: the client's, which the server hears at
once, and after another connection the server's, which the client hears at once. The cells `matrix.…` are chosen so
that any two settings meet in one of them; `full-matrix.…` are all others (`tests/interop/run matrix
full-matrix` is the whole product). The runner prints them as a table.
"""

import itertools
import re

from lib.case import SIXGATE, add, tunnel_addresses
from lib.peers import Client, Wrap, openvpn
from lib.process import Failure, until

# Who is the server and who the client: None is sixgate, otherwise the Debian release of OpenVPN.
SUITES = {"2.5": "bullseye", "2.6": "bookworm", "2.7": "sid"}
PEERS = [("sixgate", version) for version in SUITES] + [(version, "sixgate") for version in SUITES]
PEERS.append(("sixgate", "sixgate"))
CIPHERS = ("CHACHA20-POLY1305", "AES-256-GCM", "AES-128-GCM", "AES-256-CBC", "AES-192-CBC", "AES-128-CBC")
WRAPS = ("none", "tls-auth-sha256", "tls-crypt", "tls-crypt-v2")
TRANSPORTS = (4, 6)
# Who renegotiates.
SIDES = ("server", "client")
# For the CBC ciphers; tls-auth brings its own.
DIGESTS = ("SHA1", "SHA384", "SHA512", "SHA256")

MEBIBYTES = 10
# A peer may ask for a new key every five seconds.
RENEGOTIATE = 6


def factors(cell: tuple) -> list[tuple]:
    """The settings that are to meet in pairs."""
    (server, client), cipher, wrap, transport, number = cell
    return [("peers", server, client), ("cipher", cipher), ("wrap", wrap), ("transport", transport),
            ("renegotiates", number % 2)]


def covering() -> list[tuple]:
    """Cells in which every pair of settings occurs: every pair of peers meets every cipher, and
    the rest is chosen to add most of what is missing."""
    product = [(*rest, number) for *rest, number in itertools.product(PEERS, CIPHERS, WRAPS, TRANSPORTS, range(4))]
    pairs = {cell: set(itertools.combinations(factors(cell), 2)) for cell in product}
    missing = set().union(*pairs.values())
    chosen = []
    for peers, cipher in itertools.product(PEERS, CIPHERS):
        candidates = [cell for cell in product if cell[:2] == (peers, cipher)]
        best = max(candidates, key=lambda cell: len(pairs[cell] & missing))
        missing -= pairs[best]
        chosen.append(best)
    while missing:
        best = max(product, key=lambda cell: len(pairs[cell] & missing))
        missing -= pairs[best]
        chosen.append(best)
    return chosen


def name_of(cell: tuple) -> str:
    (server, client), cipher, wrap, transport, _ = cell
    return f"server-{server}.client-{client}.udp{transport}.{wrap}.{cipher}".lower()


def protocol_flags(server: str, client: str, cipher: str) -> list[str]:
    """All that OpenVPN of this version knows is in use."""
    version = client if server == "sixgate" else server
    flags = [] if version == "2.5" else ["cc-exit", "tls-ekm", "dyn-tls-crypt"]
    # Only for the ciphers that authenticate themselves.
    epoch = version == "2.7" and not cipher.endswith("CBC")
    return flags + (["aead-epoch"] if epoch else [])


def ping_server(t, client: Client, largest: int) -> None:
    """Both families, small and as large as the tunnel carries."""
    for address, header in (("10.8.0.1", 28), ("fd00:10:8::1", 48)):
        t.ping(client.host, address, count=2)
        t.ping(client.host, address, size=largest - header, count=2)


class End:
    """One end of a cell's tunnel: what it says in its log, whichever program it is."""

    def __init__(self, process, stock: bool):
        self.process = process
        self.stock = stock

    def renegotiated(self) -> bool:
        """Whether a key after the first one is in use."""
        if self.stock:
            return self.process.count(r"Control Channel: TLSv1\.[23]") >= 2
        return self.process.seen(r"key 1 is in use|KeyId\(1\) are ready|data keys 1 are ready")

    def heard_goodbye(self, client: bool, mark: int) -> None:
        if client:
            stock, own = "Connection reset command was pushed by server", "the server (restarts|says goodbye)"
        else:
            stock, own = "remote-exit|[Dd]elayed[ -]exit|CC-EEN exit message received", "the client has left"
        self.process.expect(stock if self.stock else own, timeout=5, after=mark)


def cell(settings: tuple):
    (server_is, client_is), cipher, wrap, transport, number = settings
    renegotiates = SIDES[number % 2]

    def lines(side: str) -> list[str]:
        digest = [] if wrap.startswith("tls-auth") else [f"auth {DIGESTS[number]}"]
        return [f"data-ciphers {cipher}", f"reneg-sec {RENEGOTIATE if side == renegotiates else 0}",
                "explicit-exit-notify 1", *(digest if cipher.endswith("CBC") else []), "verb 5"]

    # A 2.5 server forgets the peer id when it works out how large its own packets may be.
    largest = 1480 if server_is == "2.5" and cipher.endswith("CBC") else 1500

    def run(t):
        t.stock = server_is != "sixgate"
        t.suite = SUITES.get(server_is)
        t.suite = None if t.suite == "bookworm" else t.suite
        server = t.server(*lines("server"), wrap=wrap)
        stock_client = client_is != "sixgate"
        t.suite = SUITES.get(client_is)
        t.suite = None if t.suite == "bookworm" else t.suite
        client = Client(t, t.net.clients[0], "client1", Wrap(wrap, t.shared), lines("client"), transport=transport)

        def connect() -> End:
            if stock_client:
                client.start()
                client.wait_up()
            else:
                # Written for OpenVPN, and used as it is.
                client.process = t.process(client.host.inside(SIXGATE, "run", client.config), "client1")
                client.process.expect("the tunnel to .* is up", timeout=30)
            return End(client.process, stock_client)

        ends = {"server": End(server.process, t.stock), "client": connect()}

        used = [end.process for end in ends.values() if end.stock]
        if used and not re.search(rf"Data (Channel|key 1): [Cc]ipher '{cipher}'", used[0].text()):
            raise Failure(f"not {cipher}")
        for address in ("10.8.0.1", "fd00:10:8::1"):
            t.until_ping(client.host, address)
        if used:
            flags = re.search(r"PUSH_REPLY.*,protocol-flags ([a-z -]+)", used[0].text())
            if (flags[1].split() if flags else []) != protocol_flags(server_is, client_is, cipher):
                raise Failure(f"protocol flags: {flags and flags[1]}")
        ping_server(t, client, largest)
        for address in tunnel_addresses(client.host):
            t.ping(t.net.server, address)
        t.iperf(client.host, t.net.server, ("10.8.0.1", "fd00:10:8::1")[number % 2], mebibytes=MEBIBYTES)

        until(lambda: all(end.renegotiated() for end in ends.values()), "no renegotiation", timeout=RENEGOTIATE + 15)
        ping_server(t, client, largest)
        t.iperf(client.host, t.net.server, ("10.8.0.1", "fd00:10:8::1")[1 - number % 2], mebibytes=4)

        mark = server.process.mark()
        if client.process.stop() != 0:
            raise Failure("the client's end is a failure")
        ends["server"].heard_goodbye(client=False, mark=mark)
        ends["client"] = connect()
        for address in ("10.8.0.1", "fd00:10:8::1"):
            t.until_ping(client.host, address)
        mark = client.process.mark()
        if server.process.stop() != 0:
            raise Failure("the server's end is a failure")
        ends["client"].heard_goodbye(client=True, mark=mark)
        for log in t.dir.glob("*.log"):
            if "panicked at" in log.read_text(errors="replace"):
                raise Failure(f"{log.name}: panicked")
    return run


CHOSEN = {name_of(settings): settings for settings in covering()}
for name, settings in CHOSEN.items():
    add("matrix", name, cell(settings), own=True)
for number, rest in enumerate(itertools.product(PEERS, CIPHERS, WRAPS, TRANSPORTS)):
    settings = (*rest, number % 4)
    if name_of(settings) not in CHOSEN:
        add("full-matrix", name_of(settings), cell(settings), own=True, asked=True)


def table(results: dict[str, bool]) -> str:
    """The cells that ran, by name and whether they passed."""
    cells = {name.split(".", 1)[1]: passed for name, passed in results.items() if "matrix." in name}
    if not cells:
        return ""
    heading = [f"{'server':<8} {'client':<8} {'over':<5} {'wrapping':<16}", *(f"{cipher:<18}" for cipher in CIPHERS)]
    rows = ["", " ".join(heading)]
    for (server, client), transport, wrap in itertools.product(PEERS, TRANSPORTS, WRAPS):
        found = [cells.get(name_of(((server, client), cipher, wrap, transport, 0))) for cipher in CIPHERS]
        if any(passed is not None for passed in found):
            marks = [f"{ {True: 'ok', False: 'FAILED', None: '-'}[passed]:<18}" for passed in found]
            rows.append(" ".join([f"{server:<8} {client:<8} IPv{transport:<2} {wrap:<16}", *marks]).rstrip())
    whole = len(PEERS) * len(CIPHERS) * len(WRAPS) * len(TRANSPORTS)
    rows.append(f"""(sixgate, or the version of OpenVPN; '-': not part of this run; {len(cells)} of {whole} cells. Each is pings of
both families from both ends, {MEBIBYTES} MiB of TCP each way, a renegotiation, the client's goodbye heard by the
server, and after a second connection the server's heard by the client)
""")
    return "\n".join(rows)
