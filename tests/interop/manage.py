"""The management interface, the status file and the leases, seen by other programs."""

import json
import re
import time
from pathlib import Path

from lib.case import case
from lib.process import Failure

ASK = Path(__file__).resolve().parent / "lib" / "ask.py"
DECIDE = ASK.with_name("decide.py")


def ask(t, address: str, port, *lines: str) -> str:
    return t.net.server.run("python3", ASK, address, port, *lines, timeout=30).stdout


def want(text: str, *patterns: str) -> None:
    for pattern in patterns:
        if not re.search(pattern, text, re.MULTILINE):
            raise Failure(f"{pattern!r} is missing in:\n{text}")


def session(t, address: str, port, before: list[str]) -> None:
    """What monitors do with a server that has a client."""
    client = t.client()
    t.ping_server(client)
    text = ask(t, address, port, *before, "pid", "state", "status", "status 2", "status 3", "load-stats", "nclients",
               "foo", "log 1")
    want(text, r"^>INFO:OpenVPN Management Interface Version \d", r"^SUCCESS: pid=\d+$",
         r"^\d+,CONNECTED,SUCCESS,10\.8\.0\.1,,,,,fd00:10:8::1$",
         r"^OpenVPN CLIENT LIST$", r"^client1,203\.0\.113\.11:\d+,\d+,\d+,\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$",
         r"^10\.8\.0\.\d+,client1,203\.0\.113\.11:\d+,", r"^fd00:10:8::\w+,client1,",
         r"^HEADER,CLIENT_LIST,Common Name,Real Address,Virtual Address,Virtual IPv6 Address,",
         r"^CLIENT_LIST,client1,203\.0\.113\.11:\d+,10\.8\.0\.\d+,fd00:10:8::\w+,\d+,\d+,[^,]+,\d+,UNDEF,0,\d+,",
         r"^CLIENT_LIST\tclient1\t", r"^GLOBAL_STATS\tdco_enabled\t0$",
         r"^SUCCESS: nclients=1,bytesin=[1-9]\d*,bytesout=[1-9]\d*$",
         r"^SUCCESS: nclients=1$", r"^ERROR: unknown command, enter 'help' for more options$", r"^\d+,[IDWN],.+\nEND$")

    ping = t.process(client.host.inside("ping", "-n", "-i", "0.2", "-c", "150", "fd00:10:8::1"), "ping")
    text = ask(t, address, port, *before, "bytecount 1", "~3", "bytecount 0")
    want(text, r"^SUCCESS: bytecount interval changed$")
    counts = [tuple(map(int, found)) for found in re.findall(r"^>BYTECOUNT_CLI:0,(\d+),(\d+)$", text, re.MULTILINE)]
    if len(counts) < 2 or counts[0] >= counts[-1]:
        raise Failure(f"byte counts {counts}")
    ping.kill()

    mark = client.process.mark()
    text = ask(t, address, port, *before, "kill nobody", "kill client1", "~4" if not t.stock else "~0.1")
    want(text, r"^ERROR: common name 'nobody' not found$", r"^SUCCESS: common name 'client1' found, 1 client\(s\) killed$")
    if not t.stock:
        want(text, r"^>CLIENT:DISCONNECT,0$", r"^>CLIENT:ENV,common_name=client1$", r"^>CLIENT:ESTABLISHED,1$",
             r"^>CLIENT:ENV,END$", r"^>CLIENT:ADDRESS,1,fd00:10:8::\w+,1$")
        client.wait_up_again(mark)
        peer = re.search(r"^CLIENT_LIST,client1,([^,]+),", ask(t, address, port, *before, "status 2"), re.MULTILINE)[1]
        mark = client.process.mark()
        want(ask(t, address, port, *before, f"kill {peer}"), r"^SUCCESS: 1 client\(s\) at address [\d.]+:\d+ killed$")
        client.wait_up_again(mark)
        want(ask(t, address, port, *before, "client-kill 2 HALT"), r"^SUCCESS: client-kill command succeeded$")
        client.process.expect("SIGTERM|process exiting", dies=True)
    text = ask(t, address, port, *before, "state on", "signal SIGTERM", "~3")
    want(text, r"^SUCCESS: signal SIGTERM thrown$", r"^>STATE:\d+,EXITING,SIGTERM,,,,,$", r"^<closed>$")


@case()
def management_on_tcp_with_a_password(t):
    password = t.write("password", "open sesame\n")
    server = t.server(f"management ::1 7505 {password}")
    want(ask(t, "::1", "7505", "wrong", "wrong", "wrong"), r"^(ENTER PASSWORD:> wrong\n){3}<closed>$")
    session(t, "::1", "7505", ["open sesame"])
    server.process.wait()


@case()
def management_on_a_unix_socket(t):
    path = t.dir / "manage"
    server = t.server(f"management {path} unix")
    session(t, str(path), "unix", [])
    server.process.wait()
    if path.exists():
        raise Failure("the socket is still there")


@case()
def hold_until_released(t):
    path = t.dir / "manage"
    server = t.server(f"management {path} unix", "management-hold", start=False)
    from lib.case import SIXGATE
    program = ["openvpn", "--config"] if t.stock else [SIXGATE, "run"]
    server.process = t.process(server.host.inside(*program, server.config), "server")
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    want(ask(t, str(path), "unix", "hold", "status", "signal SIGHUP"), r"^>HOLD:Waiting for hold release:0$",
         r"^SUCCESS: hold=1$", r"^ERROR: The 'status' command is not supported by the current daemon mode$",
         r"^ERROR: signal 'SIGHUP' is currently ignored$")
    if server.host.run("ss", "-Hanu", "sport = :1194").stdout.strip():
        raise Failure("the server did not wait")
    want(ask(t, str(path), "unix", "hold release"), r"^SUCCESS: hold release succeeded$")
    server.wait_running()
    t.ping_server(t.client())


@case(clients=2)
def status_file_and_leases_outlive_the_server(t):
    """The second client comes back first and must not get the address of the first."""
    status, leases = t.dir / "status.txt", t.dir / "leases.txt"
    leases.write_text("# by hand\nclient2,10.8.0.77,fd00:10:8::104b\n" if t.stock else
                      "# by hand\nclient2,10.8.0.77,fd00:10:8::abc\nbroken line\nclient9,1.2.3.4,\n")
    server = t.server(f"status {status} 1", "status-version 3", f"ifconfig-pool-persist {leases} 1")
    if not t.stock:
        server.process.expect(r"leases\.txt:3: no address")
        server.process.expect(r"leases\.txt:4: the IPv4 address is outside of the pool")
    first, second = t.client(number=1), t.client(number=2)
    if second.v4 != "10.8.0.77":
        raise Failure(f"the second client has {second.v4}")
    addresses = (first.v4, first.v6, second.v4, second.v6)
    time.sleep(2.5)
    want(status.read_text(), rf"^CLIENT_LIST\tclient1\t[^\t]+\t{first.v4}\t{first.v6}\t", r"^END$")
    want(leases.read_text(), rf"^client1,{first.v4},{first.v6}$", rf"^client2,{second.v4},{second.v6}$")
    inode = leases.stat().st_ino
    time.sleep(1.5)
    if leases.stat().st_ino != inode and not t.stock:
        raise Failure("the leases were written again without a change")
    first.stop()
    second.stop()
    server.process.kill()
    server.start()
    second.start()
    second.wait_up()
    first.start()
    first.wait_up()
    if (first.v4, first.v6, second.v4, second.v6) != addresses:
        raise Failure(f"{addresses} became {(first.v4, first.v6, second.v4, second.v6)}")
    t.ping_server(first)
    server.process.stop()
    if not t.stock and leases.stat().st_ino != inode:
        raise Failure("the leases were written although they are the same")


@case()
def status_as_json(t):
    """`sixgate status --json`, for programs that want no format of their own."""
    if t.stock:
        return
    state = t.dir / "state"
    state.mkdir(mode=0o700)
    t.server(f"sixgate-state {state}")
    client = t.client()
    t.ping_server(client)
    status = json.loads(t.sixgate("status", "--dir", state, "--json").stdout)
    row, = status["clients"]
    if (row["name"], row["ipv4"], row["ipv6"]) != ("client1", client.v4, client.v6) or row["bytes_in"] == 0:
        raise Failure(f"{status}")


def program(t, path, seconds: float, *rules: str):
    """A program that decides on clients, running beside the test."""
    process = t.process(t.net.server.inside("python3", DECIDE, path, "unix", str(seconds), *rules), "program")
    process.expect(">INFO:")
    return process


@case(clients=2)
def a_program_lets_clients_in(t):
    """management-client-auth: yes with settings, no in words, a challenge, a question that waits for a browser."""
    path = t.dir / "manage"
    server = t.server(f"management {path} unix", "management-client-auth", "verify-client-cert optional", "reneg-sec 10 10",
                      "username-as-common-name", "verb 4")
    decider = program(
        t, path, 60,
        'se cret=client-auth {cid} {kid}|push "route 10.55.0.0 255.255.0.0"|END',
        'guess=client-deny {cid} {kid} "for the log" "come back on monday"',
        "first=client-deny {cid} {kid} challenge \"CRV1:R,E:b3Rw:am8=:Code, please\"",
        "wait=client-pending-auth {cid} {kid} WEB_AUTH::https://vpn.example/ 20",
        "silent=")
    login = {word: t.write(word.replace(" ", ""), f"jo\n{word}\n") for word in ("se cret", "guess", "first", "wait")}
    for word, told in (("guess", "AUTH_FAILED,come back on monday"), ("first", "AUTH_FAILED,CRV1:R,E:b3Rw:am8=:Code, please")):
        client = t.client(f"auth-user-pass {login[word]}", number=2, up=False)
        client.process.expect(told, dies=True)
    decider.expect(">CLIENT:CONNECT,0,")
    decider.expect(">CLIENT:ENV,password=guess")
    decider.expect(">CLIENT:ENV,untrusted_ip=203.0.113.12")
    decider.expect("SUCCESS: client-deny command succeeded")
    decider.expect(">CLIENT:DISCONNECT,0")
    waiting = t.client(f"auth-user-pass {login['wait']}", number=2, up=False)
    waiting.process.expect("WEB_AUTH::https://vpn.example/")
    decider.expect("SUCCESS: client-pending-auth command succeeded")
    client = t.client(f"auth-user-pass {login['se cret']}", "reneg-sec 0", "explicit-exit-notify 1")
    client.process.expect("route 10.55.0.0 255.255.0.0")
    t.ping_server(client)
    decider.expect("SUCCESS: client-auth command succeeded")
    decider.expect(">CLIENT:ESTABLISHED,3")
    if waiting.process.seen(waiting.UP):
        raise Failure("nobody has let the other one in")
    waiting.process.kill()
    # At a renegotiation it is asked again.
    decider.expect(">CLIENT:REAUTH,3,", timeout=30)
    if not t.stock:
        t.ping_server(client)
    client.stop()
    decider.expect(">CLIENT:DISCONNECT,3")
    decider.kill()
    if not t.stock and server.process.seen("se cret"):
        raise Failure("the password is in the log")
    server.alive()


@case(own=True)
def a_program_that_comes_late_is_asked_all_the_same(t):
    path = t.dir / "manage"
    server = t.server(f"management {path} unix", "management-client-auth", "auth-user-pass-optional")
    client = t.client(up=False)
    server.process.expect("no program is connected that could let clients in")
    decider = program(t, path, 20, "*=client-auth-nt {cid} {kid}")
    client.wait_up()
    t.ping_server(client)
    decider.kill()
