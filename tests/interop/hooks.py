"""Scripts: what they are called with, what they see, and what their answers do."""

import re
import signal
import time
from pathlib import Path

from lib.case import case
from lib.process import Failure

# Called as any hook: adds its arguments and its environment to a file named after its kind.
NOTE = """#!/bin/sh
{{ echo "ARGS $*"; tr '\\0' '\\n' < /proc/self/environ; }} >> {folder}/$script_type
"""

# What differs between two runs, or between the two servers by what they are.
INCIDENTAL = re.compile(
    # The shell's own, process ids and times, and how the two name what they listen on.
    r"PWD|_|SHLVL|daemon_(pid|start_time)|time_(unix|ascii|duration)|proto_1|local_port_1|bytes_.*"
    # Source ports; the token's random id; names of temporary files.
    r"|(un)?trusted_port|session_id|auth_(control|pending|failed_reason)_file|client_connect_.*_file"
    # The server's nominal IPv4 gateway, which nothing uses.
    r"|route_net_gateway")


def script(t, name: str, text: str) -> Path:
    """A script; text without a first line of its own is a shell's."""
    path = t.write(name, text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def notes(t) -> tuple[Path, Path]:
    """The script that writes down what it sees, and where to."""
    folder = t.dir / f"notes-{'stock' if t.stock else 'sixgate'}"
    folder.mkdir()
    return script(t, f"note-{t.stock}.sh", NOTE.format(folder=folder)), folder


def calls(folder: Path, kind: str, wanted: int = 1, timeout: float = 10) -> list[tuple[list[str], dict[str, str]]]:
    """Arguments and environment of each call, once there are so many."""
    file = folder / kind
    deadline = time.monotonic() + timeout
    while True:
        found = []
        for line in file.read_text().splitlines() if file.exists() else []:
            if line.startswith("ARGS"):
                found.append((line.split(" ")[1:], {}))
            else:
                name, _, value = line.partition("=")
                found[-1][1][name] = value
        if len(found) >= wanted:
            return found
        if time.monotonic() > deadline:
            raise Failure(f"{kind} was called {len(found)} times, not {wanted}")
        time.sleep(0.05)


def observe(t, stock: bool, transport: int, wrap: str) -> dict[str, list]:
    """Lets a client come and go, and returns what each script of the server saw."""
    before, t.stock = t.stock, stock
    try:
        note, folder = notes(t)
        kinds = ("up", "down", "route-up", "route-pre-down", "client-connect", "client-disconnect", "learn-address",
                 "tls-verify")
        server = t.server(
            "script-security 3", *[f"{kind} {note}" for kind in kinds], f"auth-user-pass-verify {note} via-env",
            "auth-gen-token 3600", "setenv FOO bar", "setenv-safe SAFE 1", "username-as-common-name",
            "route 10.77.0.0 255.255.0.0", "route-ipv6 fd77::/48", wrap=wrap)
        t.write("login", "some one\nsecret \"pass\n")
        client = t.client(f"auth-user-pass {t.dir}/login", 'setenv UV_X "5 $(y)"', "push-peer-info", transport=transport, wrap=wrap)
        t.ping_server(client)
        client.stop()
        server.process.stop()
        calls(folder, "down")
        calls(folder, "learn-address", 4)
        return {file.name: calls(folder, file.name) for file in folder.iterdir()}
    finally:
        t.stock = before


def compare(kind: str, stock: list, ours: list) -> None:
    """The same calls in the same order, the same arguments, and no variable missing or different."""
    def arguments(calls: list) -> list:
        return sorted(" ".join(a for a in arguments if "/" not in a or "::" in a) for arguments, _ in calls)
    if arguments(stock) != arguments(ours):
        raise Failure(f"{kind}: arguments {arguments(stock)} at the stock server, {arguments(ours)} at ours")
    for (_, theirs), (_, own) in zip(stock, ours):
        for name, value in theirs.items():
            if not INCIDENTAL.fullmatch(name) and own.get(name) != value:
                raise Failure(f"{kind}: {name} is {value!r} at the stock server, {own.get(name)!r} at ours")
            if name not in own and name != "_":
                # These name files that are gone by then.
                if not name.startswith("auth_") and name not in ("route_net_gateway",):
                    raise Failure(f"{kind}: {name} is not set by ours")
        extra = set(own) - set(theirs) - {"_", "local_1"}
        if extra and kind not in ("learn-address",):
            raise Failure(f"{kind}: {sorted(extra)} are set by ours only")


@case(own=True)
def environment_over_ipv4(t):
    stock, ours = observe(t, True, 4, "tls-crypt"), observe(t, False, 4, "tls-crypt")
    if set(stock) != set(ours):
        raise Failure(f"{sorted(stock)} were called by the stock server, {sorted(ours)} by ours")
    for kind in stock:
        compare(kind, stock[kind], ours[kind])


@case(own=True)
def environment_over_ipv6(t):
    stock, ours = observe(t, True, 6, "none"), observe(t, False, 6, "none")
    compare("client-connect", stock["client-connect"], ours["client-connect"])
    _, seen = ours["client-connect"][0]
    if "trusted_ip6" not in seen or "trusted_ip" in seen:
        raise Failure(f"a client over IPv6 comes from {seen.get('trusted_ip6')}, {seen.get('trusted_ip')}")


@case(clients=2)
def a_slow_script_delays_nobody_else(t):
    slow = script(t, "slow.sh", 'test "$common_name" != client2 || sleep 10')
    server = t.server("script-security 2", f"client-connect {slow}")
    first = t.client()
    start = time.monotonic()
    second = t.client(number=2, up=False)
    server.expect("client2.*peer info|client2", "client-connect: ")
    if t.stock:
        return
    # 200 echo requests in 4 s, while the script sleeps.
    t.ping(first.host, "10.8.0.1", count=100, interval=0.02)
    t.ping(first.host, "fd00:10:8::1", count=100, interval=0.02)
    if time.monotonic() - start > 10 or second.process.seen(second.UP):
        raise Failure("the script was not waited for, or everything waited for it")
    second.wait_up()
    t.ping_server(second)


@case(clients=2)
def a_script_that_fails_keeps_a_client_out(t):
    for kind, text in (
        ("client-connect", 'test "$common_name" != client2'),
        ("tls-verify", 'test "$1" != 0 || test "$2" != "CN=client2"'),
        ("client-connect", 'test "$common_name" != client2 || echo disable > "$1"'),
        ("client-connect", 'test "$common_name" != client2 || printf 0 > "$client_connect_deferred_file"'),
    ):
        server = t.server("script-security 2", f"{kind} {script(t, 'judge.sh', text)}")
        bad = t.client("connect-retry-max 1", number=2, up=False)
        if t.stock:
            server.process.expect("VERIFY SCRIPT ERROR|client-connect|CONNECT")
            time.sleep(2)
        else:
            bad.process.expect("AUTH_FAILED", dies=True)
        if bad.process.seen(bad.UP):
            raise Failure(f"{kind} {text}: it came in")
        good = t.client()
        t.ping_server(good)
        good.stop()
        bad.process.kill()
        server.alive()
        server.process.stop()


@case()
def client_connect_writes_settings(t):
    """Now, or later, and together with the client's own file."""
    (t.dir / "ccd").mkdir()
    t.write("ccd/client1", 'push "setenv-safe FILE yes"\nifconfig-push 10.8.0.77 255.255.255.0\n')
    settings = ("printf 'ifconfig-ipv6-push fd00:10:8::66/64\\npush \"route 10.55.0.0 255.255.0.0\"\\n"
                "iroute-ipv6 fd66::/48\\n' > \"$1\"")
    later = f'printf 2 > $client_connect_deferred_file; (sleep 2; {settings}; printf 1 > $client_connect_deferred_file) > /dev/null 2>&1 &'
    for text in (settings, later):
        server = t.server("script-security 2", f"client-connect {script(t, 'connect.sh', text)}", f"client-config-dir {t.dir}/ccd")
        client = t.client()
        if (client.v4, client.v6) != ("10.8.0.77", "fd00:10:8::66"):
            raise Failure(f"addresses are {client.v4}, {client.v6}")
        client.process.expect("route 10.55.0.0 255.255.0.0")
        client.process.expect("setenv-safe FILE yes")
        t.ping_server(client)
        client.stop()
        server.process.stop()


@case(clients=2)
def user_names_and_passwords(t):
    """By file and by variable, right and wrong, with and without a certificate."""
    good, bad = t.write("good", "jo\nse cret\n"), t.write("bad", "jo\nguess\n")
    folder = t.dir / "tmp"
    folder.mkdir()
    by_file = script(t, "file.sh", 'test "$(cat "$1")" = "$(printf "jo\\nse cret")" && echo "password file $(stat -c %a "$1")"')
    by_variable = script(t, "variable.sh", 'test "$username" = jo && test "$password" = "se cret"')
    for method in (f"auth-user-pass-verify {by_file} via-file", f"auth-user-pass-verify {by_variable} via-env"):
        server = t.server("script-security 3", method, "verify-client-cert optional", "username-as-common-name", f"tmp-dir {folder}")
        stranger = t.client(f"auth-user-pass {bad}", number=2, up=False)
        stranger.process.expect("AUTH_FAILED", dies=True)
        nobody = t.client(number=2, up=False)
        if not t.stock:
            nobody.process.expect("AUTH_FAILED", dies=True)
        nobody.process.kill()
        client = t.client(f"auth-user-pass {good}")
        t.ping_server(client)
        server.alive()
        if server.process.seen("se cret"):
            raise Failure("the password is in the log")
        client.stop()
        server.process.stop()
        left = list(folder.iterdir())
        if left and not t.stock:
            raise Failure(f"left behind: {left}")


@case()
def without_a_certificate(t):
    login = script(t, "login.sh", 'test "$username" = jo')
    server = t.server("script-security 2", f"auth-user-pass-verify {login} via-file", "verify-client-cert none", "username-as-common-name")
    credentials = t.write("login", "jo\nx\n")
    # The profile without its certificate.
    client = t.client(f"auth-user-pass {credentials}", up=False)
    client.process.kill()
    text = client.config.read_text()
    t.write("anonymous.conf", "\n".join(line for line in text.splitlines() if not line.startswith(("cert ", "key "))) + "\n")
    anonymous = t.client(profile=t.dir / "anonymous.conf")
    t.ping_server(anonymous)
    server.alive()


@case()
def an_answer_that_comes_later(t):
    text = """printf '20\\nwebauth\\nWEB_AUTH::https://vpn.example/login\\n' > $auth_pending_file
(sleep 3; printf 1 > $auth_control_file) > /dev/null 2>&1 &
exit 2"""
    server = t.server("script-security 2", f"auth-user-pass-verify {script(t, 'later.sh', text)} via-file")
    credentials = t.write("login", "jo\nx\n")
    client = t.client(f"auth-user-pass {credentials}", "setenv IV_SSO webauth")
    client.process.expect("AUTH_PENDING received")
    client.process.expect("Info command was pushed by server")
    t.ping_server(client)
    client.stop()
    # A client that says nothing of it could not do what it would be asked for.
    client = t.client(f"auth-user-pass {credentials}", up=False)
    client.process.expect("AUTH_FAILED", dies=True)
    server.alive()


@case()
def a_refusal_in_words(t):
    text = "printf 'come back on monday' > $auth_failed_reason_file; exit 1"
    t.server("script-security 2", f"auth-user-pass-verify {script(t, 'no.sh', text)} via-file")
    client = t.client(f"auth-user-pass {t.write('login', 'jo' + chr(10) + 'x' + chr(10))}", up=False)
    client.process.expect("AUTH_FAILED,come back on monday", dies=True)


@case(alone=True)
def tokens(t):
    """A password that is good once: renegotiations go by the token, also at another server with its key."""
    secret = t.dir / "token.key"
    t.net.server.run("openvpn", "--genkey", "auth-token", secret)
    used = t.dir / "used"
    once = script(t, "once.sh", f'test ! -e {used} && touch {used}')
    lines = ("script-security 2", f"auth-user-pass-verify {once} via-file", "auth-gen-token 600 120", f"auth-gen-token-secret {secret}", "reneg-sec 10 10")
    credentials = t.write("login", "jo\nx\n")
    server = t.server(*lines)
    client = t.client(f"auth-user-pass {credentials}", "reneg-sec 0", "connect-retry 1", "auth-retry nointeract")
    server.expect("Username/auth-token authentication succeeded", "its token is accepted", timeout=30)
    t.ping_server(client)
    server.process.stop()
    # Another server with the same key, one of stock and one of ours in turn.
    t.stock = not t.stock
    try:
        mark = client.process.mark()
        other = t.server(*lines)
        client.process.send(signal.SIGUSR1)
        client.wait_up_again(mark)
        t.ping_server(client)
        other.alive()
    finally:
        t.stock = not t.stock


@case()
def learn_address_has_a_veto(t):
    veto = script(t, "veto.sh", 'test "$2" != 10.8.0.2')
    server = t.server("script-security 2", f"learn-address {veto}")
    client = t.client()
    t.ping(client.host, "fd00:10:8::1")
    t.no_ping(client.host, "10.8.0.1")
    server.alive()


@case()
def metadata_of_a_client_key(t):
    """tls-crypt-v2-verify sees what the key was made with."""
    seen = t.dir / "seen"
    judge = script(t, "meta.sh", f'cat "$metadata_file" > {seen}; test "$metadata_type" = 0 && grep -q welcome "$metadata_file"')
    server = t.server("script-security 2", f"tls-crypt-v2-verify {judge}", wrap="tls-crypt-v2")
    keys = {}
    for text in ("d2VsY29tZSBob21l", "Z28gYXdheQ=="):
        keys[text] = t.dir / f"{len(keys)}.key"
        t.net.server.run("openvpn", "--tls-crypt-v2", t.shared.v2_server, "--genkey", "tls-crypt-v2-client", keys[text], text)
    welcome, stranger = keys.values()
    client = t.client(f"tls-crypt-v2 {welcome}", wrap="none")
    t.ping_server(client)
    if seen.read_bytes() != b"welcome home":
        raise Failure(f"the script saw {seen.read_bytes()}")
    client.stop()
    bad = t.client(f"tls-crypt-v2 {stranger}", wrap="none", up=False)
    if not t.stock:
        bad.process.expect("AUTH_FAILED", dies=True)
    time.sleep(2)
    if bad.process.seen(bad.UP):
        raise Failure("it came in")
    server.alive()
