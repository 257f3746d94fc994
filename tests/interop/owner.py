"""What the owner of a server sees and does: status, log, kick; and what must never be seen."""

import base64
import json
import re
import signal
import sys
import time
from pathlib import Path

from client_host import ANSWER, Sixgate
from lib.case import SIXGATE, add, case
from lib.peers import Wrap
from lib.process import Failure, command
from up import Up

ASK = Path(__file__).resolve().parent / "lib" / "ask.py"


def want(text: str, *patterns: str) -> None:
    for pattern in patterns:
        if not re.search(pattern, text, re.MULTILINE):
            raise Failure(f"{pattern!r} is missing in:\n{text}")


@case(own=True)
def status_tells_all_there_is_to_know(t):
    server = Up(t)
    client = server.client(server.state / "clients" / "client1.ovpn")
    server.ping(client)
    # Something to be dropped: a flood of nonsense from a stranger.
    t.net.clients[0].run("python3", "-c", "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                         f"for n in range(20): s.sendto(b'\\x38junk', ('{t.net.server.v4}', 1194))")
    date = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    want(server.command("status").stdout,
         r"^sixgate \S+ pid \d+ clients 1$", r"^offload tun .+ udp .+$", r"^system call filter (on|off: not for this processor)$",
         r"^address 10\.8\.0\.1$", r"^address fd[0-9a-f:]+$",
         rf"^certificate of the server until {date}$", rf"^certificate of the authority until {date}$",
         r"^client 'client1' from 203\.0\.113\.11:\d+ 10\.8\.0\.\d+ fd[0-9a-f:]+ \S+ in [1-9]\d* out [1-9]\d* version 2\.6\S* "
         rf"platform linux since {date} seen \d s ago certificate until {date}$", r"^dropped \S+ \d+$")
    found = json.loads(server.command("status", "--json").stdout)
    one, = found["clients"]
    now = time.time()
    if not (now - 60 < one["since"] <= one["last_seen"] <= now + 1 and one["certificate_expires"] > now + 3e7
            and found["certificates"]["server"] > now and found["certificates"]["authority"] > now
            and found["ipv4"] == "10.8.0.1" and found["dropped"] and set(found["offload"]) == {"tun", "udp"}):
        raise Failure(f"the status is not complete: {found}")
    # Silence shows.
    client.process.send(signal.SIGSTOP)
    time.sleep(3.2)
    want(server.command("status").stdout, r" seen [3-9] s ago ")
    client.process.send(signal.SIGCONT)
    # A prefix of the line appears as soon as it is there.
    t.net.server.ip("addr add 2a00:db8:77::1/64 dev tun0 nodad")
    server.process.expect("clients have addresses in 2a00:db8:77::/64")
    want(server.command("status").stdout, r"^prefix 2a00:db8:77::/64$")
    if json.loads(server.command("status", "--json").stdout)["prefixes"] != ["2a00:db8:77::/64"]:
        raise Failure("no prefix in the JSON")


@case(own=True)
def kick_ends_a_connection_and_it_may_come_back(t):
    server = Up(t)
    client = server.client(server.state / "clients" / "client1.ovpn")
    wrong = server.command("kick", "nobody", check=False)
    if wrong.returncode != 1 or "no client named 'nobody' is connected" not in wrong.stdout:
        raise Failure(f"{wrong.returncode} {wrong.stdout}")
    mark = client.process.mark()
    want(server.command("kick", "client1").stdout, r"^client1: 1 connection ended$")
    server.process.expect(r"client1 \(\S+\): gone: ")
    client.wait_up_again(mark)
    server.ping(client)
    server.stop()
    gone = server.command("kick", "client1", check=False)
    if gone.returncode != 1 or "no server is running with" not in gone.stdout:
        raise Failure(f"{gone.returncode} {gone.stdout}")


@case(own=True)
def log_shows_what_was_logged_and_goes_on(t):
    server = Up(t)
    follower = t.process(t.net.server.inside(SIXGATE, "log", "-f", "--dir", server.state), "follow")
    follower.expect(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d running: ")
    server.client(server.state / "clients" / "client1.ovpn")
    line = r"client1 \(\S+\): connected as peer \d+"
    follower.expect(line)
    time.sleep(1.2)
    if follower.count(line) != 1:
        raise Failure("a line came twice")
    text = server.command("log").stdout
    want(text, r"running: ", line)
    if text.splitlines() != follower.text().splitlines()[1:]:
        raise Failure(f"what is followed is something else:\n{text}\n----\n{follower.text()}")
    if server.command("log", "-n", "1").stdout != text.splitlines()[-1] + "\n":
        raise Failure("not the newest line")
    server.stop()
    follower.expect("no server is running with", dies=True)


def key_lines(*files: Path) -> set[str]:
    """The lines of keys, which nobody but their owner may see."""
    found = set()
    for file in files:
        for body in re.findall(r"-----BEGIN [^-]*(?:KEY|[Kk]ey)[^-]*-----\n(.*?)-----END", file.read_text(), re.DOTALL):
            lines = [line for line in body.split() if len(line) >= 24]
            # How a private key begins is common to all of its kind.
            found.update(lines[1:] if "=" in body or "+" in body else lines)
    if not found:
        raise Failure(f"no keys in {files}")
    return found


def shapes(word: str) -> set[str]:
    """A secret word as it may stand in a text."""
    data = word.encode()
    return {word, base64.b64encode(data).decode().rstrip("="), data.hex(), str(list(data)).strip("[]")}


def secrets_are_in_no_log(t, wrap: str):
    """Both roles, everything that is secret configured, at the highest verbosity."""
    words = {"management": "Xm4nage-w0rd", "login": "Xl0gin-w0rd", "answer": "X924751"}
    password = t.write("password", words["management"] + "\n")
    token_key = t.dir / "token.key"
    command("openvpn", "--genkey", "auth-token", token_key)
    judge = t.write("judge.sh", "#!/bin/sh\nexit 0\n")
    judge.chmod(0o755)
    path = t.dir / "manage"
    server = t.server("verb 11", f"management {path} unix {password}", "management-log-cache 20000", "script-security 3",
                      f"auth-user-pass-verify {judge} via-env", "auth-gen-token 60", f"auth-gen-token-secret {token_key}",
                      "reneg-sec 4", f"client-connect {judge}", f"sixgate-state {t.dir}", wrap=wrap)
    peer = Sixgate(t, t.net.clients[0], "client1", Wrap(wrap, t.shared), ("verb 11", "auth-user-pass", 'static-challenge "Code" 0'))
    peer.process = t.process(peer.host.inside(sys.executable, ANSWER, "User name: ", "alice", "Password: ", words["login"],
                                              "Code: ", words["answer"], "--", SIXGATE, "run", peer.config), peer.name)
    peer.wait_up()
    server.process.expect("its token is accepted", timeout=20)
    t.ping_server(peer)
    kept = t.net.server.run("python3", ASK, path, "unix", words["management"], "status", "log all", timeout=30).stdout
    logged = t.sixgate("log", "--dir", t.dir, host=t.net.server).stdout + t.sixgate("status", "--dir", t.dir, host=t.net.server).stdout
    checked = t.sixgate("check", server.config).stdout + t.sixgate("check", peer.config).stdout
    peer.stop()
    server.process.stop()
    # The file of the terminal has what was typed only if the terminal echoes it, which it must not.
    texts = {"server": server.process.text(), "client": peer.process.text(), "management": kept, "sixgate log": logged}
    for name, text in texts.items():
        want(text, {"client": "data keys 1 are ready"}.get(name, "alice: its token is accepted"))
    texts["sixgate check"] = checked
    keys = t.shared.authority.dir
    hidden = key_lines(keys / "server.key", keys / "client1.key", token_key, *wrap_keys(t, wrap))
    for word in words.values():
        hidden |= shapes(word)
    hidden.add("SESS_ID_AT_")
    for name, text in texts.items():
        found = [line for line in text.splitlines() if any(word in line for word in hidden)]
        # The commands of this case, and what it told the management interface.
        found = [line for line in found if not line.startswith(("$ ", "ENTER PASSWORD:"))]
        if found:
            raise Failure(f"{name} has secrets: {found[:3]}")


def wrap_keys(t, wrap: str) -> list[Path]:
    lines = Wrap(wrap, t.shared).server + Wrap(wrap, t.shared).client
    return [Path(line.split()[1]) for line in lines if line.startswith("tls-")]


for kind in ("tls-auth-sha256", "tls-crypt", "tls-crypt-v2"):
    add("owner", f"secrets-are-in-no-log.{kind}", lambda t, kind=kind: secrets_are_in_no_log(t, kind), own=True)
