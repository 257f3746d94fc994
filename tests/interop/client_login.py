"""sixgate as the client of a stock server that asks who it is: on a terminal, by the management interface, with
challenges and second thoughts. What a management program sees is compared with what OpenVPN's client shows it."""

import re
import signal
import sys
import time
from pathlib import Path

from client_host import ANSWER, LOGIN, Sixgate, client
from lib.case import SIXGATE, add
from lib.peers import Client, Wrap
from lib.process import Failure, until

ASK = Path(__file__).resolve().parent / "lib" / "ask.py"
PASSWORD = "se cret"
CODE = "CRV1::st4te::1234"


def stock(function, name: str) -> None:
    """Registers a case with a stock server."""
    def run(t):
        t.stock = True
        function(t)
    add("client-login", name, run, own=True)


def server(t, script: str, *lines: str):
    """A server whose script has the last word: it sees $username and $password."""
    path = t.write("verify.sh", "#!/bin/sh\n" + script)
    path.chmod(0o755)
    return t.server("script-security 3", f"auth-user-pass-verify {path} via-env", *lines)


# Right is the answer to the challenge that the right password brings.
CHALLENGE = f"""test "$password" = "{CODE}" && exit 0
test "$username" = someone -a "$password" = "{PASSWORD}" &&
  printf 'CRV1:R,E:st4te:c29tZW9uZQ==:Which code?' >"$auth_failed_reason_file"
exit 1
"""


def at_a_terminal(t, peer, answers: list[str]) -> None:
    peer.process = t.process(peer.host.inside(sys.executable, ANSWER, *answers, "--", SIXGATE, "run", peer.config), "client1")


def challenge_at_a_terminal(t):
    server(t, CHALLENGE)
    peer = client(t, "auth-user-pass", up=False)
    peer.process.expect("no terminal to ask", dies=True)
    at_a_terminal(t, peer, [*LOGIN, "Which code?: ", "1234"])
    peer.wait_up()
    t.ping_server(peer)
    peer.process.stop()
    # Password and code come from files and nobody: what is asked is said.
    t.write("login", f"someone\n{PASSWORD}\n")
    peer = client(t, f"auth-user-pass {t.dir}/login", up=False)
    peer.process.expect(r'no terminal to ask for \"Which code\?\" on', dies=True)
    if peer.ended() == 0:
        raise Failure("a challenge without an answer is a failure")


def asked_again(t):
    """`auth-retry interact`: another try on the terminal; Ctrl-C ends it there and then."""
    server(t, f'test "$password" = "{PASSWORD}"\n')
    peer = client(t, "auth-user-pass", "auth-retry interact", up=False)
    peer.process.wait()
    at_a_terminal(t, peer, [*LOGIN[:3], "wrong", *LOGIN])
    peer.wait_up()
    t.ping_server(peer)
    peer.process.stop()
    at_a_terminal(t, peer, [*LOGIN[:3], "wrong", "User name: ", "\x03"])
    if peer.ended() != 0:
        raise Failure("Ctrl-C is a requested end")


def forgotten(t):
    """`auth-nocache`: asked again for the next connection."""
    listening = server(t, f'test "$password" = "{PASSWORD}"\n', "explicit-exit-notify 1")
    peer = client(t, "auth-user-pass", "auth-nocache", up=False)
    peer.process.wait()
    at_a_terminal(t, peer, [*LOGIN, *LOGIN])
    peer.wait_up()
    mark = peer.process.mark()
    listening.process.stop()
    listening.start()
    peer.wait_up_again(mark)
    if not peer.process.seen("Password: ", after=mark):
        raise Failure("nobody was asked")
    t.ping_server(peer)
    peer.process.stop()


def refused_for_now(t):
    """AUTH_FAILED,TEMP: the server says when to come back."""
    server(t, f"""test -e {t.dir}/later && exit 0
touch {t.dir}/later
printf 'TEMP[backoff 4,advance no]:too many today' >"$auth_failed_reason_file"
exit 1
""")
    t.write("login", f"someone\n{PASSWORD}\n")
    peer = client(t, f"auth-user-pass {t.dir}/login", up=False)
    peer.process.expect("refused for now: too many today; trying again")
    start = time.monotonic()
    peer.wait_up()
    if not 3.5 < time.monotonic() - start < 8:
        raise Failure(f"it came back after {time.monotonic() - start:.1f} s, not 4")


def by_management(words: list[str], script: str, *lines: str):
    """OpenVPN's client and ours, and what each shows the program that gives it a login with these lines."""
    def run(t):
        server(t, script, "duplicate-cn")
        seen = []
        for program in (Client, Sixgate):
            path = t.dir / f"{program.__name__}.sock"
            own = ("auth-user-pass", f"management {path} unix", "management-query-passwords", "auth-retry interact", *lines)
            peer = program(t, t.net.clients[0], "client1", Wrap("tls-crypt", t.shared), ("verb 4", "connect-retry 1 1", *own))
            peer.start()
            until(path.exists, "no management interface", timeout=10)
            told = t.net.clients[0].run(sys.executable, ASK, path, "unix", *words, timeout=60).stdout
            peer.wait_up()
            t.ping_server(peer)
            peer.process.stop(signal.SIGTERM, timeout=15)
            lines_seen = [line for line in told.splitlines() if re.match(">PASSWORD|SUCCESS|ERROR|> ", line)]
            seen.append([line for line in lines_seen if not line.startswith("> ~")])
        if seen[0] != seen[1]:
            raise Failure(f"OpenVPN's client shows\n{chr(10).join(seen[0])}\nand ours\n{chr(10).join(seen[1])}")
        if not any(line.startswith(">PASSWORD:Need 'Auth' username/password") for line in seen[0]):
            raise Failure(f"nobody is asked: {seen[0]}")
    return run


def entered(password: str) -> list[str]:
    return ['username "Auth" someone', f'password "Auth" "{password}"']


stock(challenge_at_a_terminal, "challenge-at-a-terminal")
stock(asked_again, "asked-again")
stock(forgotten, "forgotten")
stock(refused_for_now, "refused-for-now")
PLAIN = f'test "$username" = someone -a "$password" = "{PASSWORD}"\n'
stock(by_management(["~1", 'username "Private Key" x', *entered(PASSWORD), "~3"], PLAIN), "management.login")
stock(by_management(["~1", *entered("wrong"), "~4", *entered(PASSWORD), "~3"], PLAIN), "management.refused")
stock(by_management(["~1", *entered(PASSWORD), "~4", *entered(CODE), "~3"], CHALLENGE), "management.challenge")
STATIC = "SCRV1:c2UgY3JldA==:MTIzNA=="
stock(by_management(["~1", *entered(STATIC), "~3"], f'test "$password" = "{STATIC}"\n', 'static-challenge "Your PIN" 1'),
      "management.static-challenge")
