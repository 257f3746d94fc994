"""One-time codes as a second factor: the secret as an app reads it from the screen, stock clients that ask their
user by the management interface, tokens afterwards, replays, and a router without a clock."""

import base64
import hmac
import re
import signal
import socket
import struct
import sys
import time
import urllib.parse

from client_host import ANSWER, Sixgate
from lib.case import SIXGATE, case
from lib.peers import Client, Wrap
from lib.process import Failure, command
from up import Up

STEP = 30


class App:
    """An authenticator app, after RFC 6238."""

    def __init__(self, text: str):
        uri = re.search(r"otpauth://\S+", text)[0]
        parts = urllib.parse.urlparse(uri)
        self.fields = urllib.parse.parse_qs(parts.query)
        self.label = urllib.parse.unquote(parts.path)
        self.secret = base64.b32decode(self.fields["secret"][0])
        self.used = 0

    def code(self, step: int) -> str:
        digest = hmac.digest(self.secret, struct.pack(">Q", step), "sha1")
        offset = digest[-1] & 15
        return f"{(int.from_bytes(digest[offset:offset + 4], 'big') & 0x7fffffff) % 10**6:06}"

    def fresh(self) -> str:
        """A code that was not used yet; waits for the next one if it has to."""
        while (step := int(time.time()) // STEP) <= self.used:
            time.sleep(0.5)
        self.used = step
        return self.code(step)


class Manager:
    """A front end that a stock client asks for what it needs."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 20
        while True:
            try:
                return self.socket.connect(str(path))
            except OSError:
                if time.monotonic() > deadline:
                    raise Failure(f"nobody listens at {path}") from None
                time.sleep(0.1)

    text = ""

    def expect(self, pattern: str, timeout: float = 60) -> re.Match:
        """What comes next that looks like this; everything before it is forgotten."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.text)):
            self.socket.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                data = self.socket.recv(4096)
            except TimeoutError:
                data = b""
            if not data:
                raise Failure(f"no /{pattern}/ in {self.text!r}")
            self.text += data.decode()
        self.text = self.text[found.end():]
        return found

    def answer(self, username: str, password: str) -> None:
        self.socket.sendall(f'username "Auth" "{username}"\npassword "Auth" "{password}"\n'.encode())


def protected(t) -> tuple[Up, App]:
    """A server whose client1 has to bring a code."""
    server = Up(t)
    shown = server.command("client", "totp", "client1").stdout
    if "the running server has taken it over" not in shown:
        raise Failure(shown)
    return server, App(shown)


def managed(t, server: Up, *lines: str, keep: str = "") -> tuple[Client, Manager]:
    """A stock client with the server's profile that asks a front end; `keep` of its lines about codes stay."""
    path = t.dir / "front-end"
    path.unlink(missing_ok=True)
    text = (server.state / "clients" / "client1.ovpn").read_text()
    if keep:
        text = "".join(line for line in text.splitlines(True) if not line.startswith("static-challenge"))
    text = "\n".join([f"management {path} unix", "management-query-passwords", *lines]) + "\n" + text
    client = server.client(t.write("profile.ovpn", text), up=False)
    return client, Manager(path)


def scrv1(password: str, code: str) -> str:
    encode = lambda text: base64.b64encode(text.encode()).decode()  # noqa: E731
    return f"SCRV1:{encode(password)}:{encode(code)}"


@case(own=True)
def what_the_screen_shows_is_what_an_app_reads(t):
    server = Up(t)
    shown = server.command("client", "totp", "client1").stdout
    app = App(shown)
    if app.label != "/203.0.113.1:client1" or app.fields["issuer"] != ["203.0.113.1"] or len(app.secret) != 20:
        raise Failure(f"{app.label} {app.fields}")
    # The blocks as a picture, read by another program.
    rows = [line for line in shown.splitlines() if re.fullmatch(r"[█▀▄ ]{20,}", line)]
    pixels = []
    for row in rows:
        pixels += [[character in there for character in row] for there in ("█▀", "█▄")]
    scale, width = 8, len(rows[0])
    data = b"".join(bytes(0 if dark else 255 for dark in row for _ in range(scale)) * scale for row in pixels)
    picture = t.dir / "code.pgm"
    picture.write_bytes(f"P5 {width * scale} {len(pixels) * scale} 255\n".encode() + data)
    read = command("zbarimg", "--quiet", "--raw", picture).stdout.split()[-1]
    if read != re.search(r"otpauth://\S+", shown)[0]:
        raise Failure(f"the picture says {read!r}")
    files = list((server.state / "ccd").iterdir())
    if [(file.name, file.stat().st_mode & 0o777) for file in files] != [("client1", 0o600)]:
        raise Failure(f"{files}")
    before = (server.state / "clients" / "client1.ovpn").read_text()
    server.command("client", "totp", "client1", "--remove")
    after = (server.state / "clients" / "client1.ovpn").read_text()
    if "static-challenge" not in before or "static-challenge" in after or (server.state / "ccd" / "client1").exists():
        raise Failure("the code is still asked for")
    server.ping(server.client(server.state / "clients" / "client1.ovpn"))


@case(own=True)
def a_stock_client_with_a_static_challenge(t):
    server, app = protected(t)
    client, front = managed(t, server, "reneg-sec 8")
    front.expect(r">PASSWORD:Need 'Auth' username/password SC:1,Code of the authenticator app")
    code = app.fresh()
    front.answer("anna", scrv1("x", "000000"))
    server.process.expect("refused: the one-time code is wrong")
    front.expect("Need 'Auth' username/password SC:1,", timeout=30)
    front.answer("anna", scrv1("x", code))
    client.wait_up()
    server.process.expect("client1: its one-time code is accepted")
    server.ping(client)
    # A renegotiation needs no code, and brings a token.
    server.process.expect("anna: its token is accepted", timeout=30)
    server.ping(client)
    # Nor does it when the connection is made again.
    mark = client.process.mark()
    server.command("kick", "client1")
    client.wait_up_again(mark)
    server.ping(client)
    if server.process.count("its one-time code is accepted") != 1:
        raise Failure("a code was needed again")
    # The same code is of no use to whoever has seen it.
    client.stop()
    client, front = managed(t, server)
    front.expect("Need 'Auth' username/password SC:1,")
    front.answer("anna", scrv1("x", code))
    server.process.expect("refused: the one-time code has been used")
    front.expect("Need 'Auth' username/password SC:1,", timeout=30)
    front.answer("anna", scrv1("x", app.fresh()))
    client.wait_up()
    server.ping(client)


@case(own=True)
def a_stock_client_with_a_dynamic_challenge(t):
    """Its profile asks for a password alone; the question comes from the server."""
    server, app = protected(t)
    client, front = managed(t, server, keep="password")
    front.expect(r">PASSWORD:Need 'Auth' username/password\r?\n")
    front.answer("anna", "anything")
    state, user, text = front.expect(r"Verification Failed: 'Auth' \['CRV1:R,E:([^:]+):([^:]+):([^']+)'\]").groups()
    if base64.b64decode(user) != b"anna" or "authenticator app" not in text:
        raise Failure(f"{user} {text}")
    front.expect(r">PASSWORD:Need 'Auth' username/password")
    front.answer("anna", f"CRV1::{state}::{app.fresh()}")
    client.wait_up(timeout=60)
    server.ping(client)
    client.stop()
    # The state is no token, and with a code that is wrong no key.
    client, front = managed(t, server, keep="password")
    front.expect(r">PASSWORD:Need 'Auth' username/password")
    front.answer("anna", state)
    server.process.expect("refused: it is asked for a one-time code|refused: its token")
    front.expect(r">PASSWORD:Need 'Auth' username/password")
    front.answer("anna", f"CRV1::{state}::123456")
    server.process.expect("refused: the one-time code is wrong")


@case(own=True)
def the_code_in_place_of_the_password_and_our_own_client(t):
    server, app = protected(t)
    client, front = managed(t, server, keep="password")
    front.expect(r">PASSWORD:Need 'Auth' username/password")
    front.answer("anna", app.fresh())
    client.wait_up()
    server.ping(client)
    client.stop()
    profile = server.state / "clients" / "client1.ovpn"
    code = app.fresh()
    ours = Sixgate(t, t.net.clients[0], "client1", Wrap("none", t.shared), profile=profile)
    ours.process = t.process(ours.host.inside(sys.executable, ANSWER, "User name: ", "anna", "Password: ", "x",
                                              "Code of the authenticator app: ", code, "--", SIXGATE, "run", profile), "client1")
    ours.wait_up()
    server.ping(ours)


@case(own=True)
def a_profile_that_asks_for_nothing_is_told_why(t):
    server = Up(t)
    old = t.write("old.ovpn", (server.state / "clients" / "client1.ovpn").read_text())
    server.command("client", "totp", "client1")
    client = server.client(old, up=False)
    client.process.expect("AUTH: Received control message: AUTH_FAILED,a one-time code is needed")
    server.process.expect("client1 .*refused: a one-time code is needed, and its profile does not ask")


@case(own=True)
def a_server_without_a_clock_says_so(t):
    """As a router that has just started: its clock shows 1970."""
    server, app = protected(t)
    server.stop()
    server.process = t.process(server.t.net.server.inside(
        "env", "LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "FAKETIME=@1970-01-02 00:00:00",
        "FAKETIME_DONT_FAKE_MONOTONIC=1", SIXGATE, "up", "--dir", server.state), "server")
    server.process.expect("running: ")
    client, front = managed(t, server)
    front.expect("Need 'Auth' username/password SC:1,")
    front.answer("anna", scrv1("x", app.fresh()))
    server.process.expect("client1: one-time codes cannot be checked: the server's clock is not set yet")
    client.process.expect("AUTH_FAILED,TEMP:one-time codes cannot be checked")
    client.process.send(signal.SIGTERM)
