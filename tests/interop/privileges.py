"""What a running process may do, what it can read, and what it still knows."""

import base64
import errno
import re
import signal
import time
from pathlib import Path

from client_host import Sixgate
from hooks import script
from lib.case import case
from lib.inject import inject
from lib.peers import Wrap
from lib.process import Failure
from up import Up

NET_ADMIN = 1 << 12


def status(pid: int) -> dict[str, str]:
    lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, value in lines}


def holds_little(pid: int) -> dict[str, str]:
    """One capability and no way to another."""
    found = status(pid)
    for name in ("CapEff", "CapPrm", "CapBnd"):
        if int(found[name], 16) != NET_ADMIN:
            raise Failure(f"{name} is {found[name]}")
    for name, wanted in (("CapInh", 0), ("CapAmb", 0), ("NoNewPrivs", 1)):
        if int(found[name], 16) != wanted:
            raise Failure(f"{name} is {found[name]}")
    return found


def memory(pid: int) -> bytes:
    """All that a process has written, as it is now."""
    parts = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end, mode = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
            if not mode.startswith("rw") or "[vvar" in line or "/dev" in line:
                continue
            try:
                mem.seek(int(start, 16))
                parts.append(mem.read(int(end, 16) - int(start, 16)))
            except (OSError, ValueError):
                continue
    return b"\n".join(parts)


def scalar(key: Path) -> bytes:
    """The 32 secret bytes of a P-256 key (RFC 5915: an octet string of that length behind the version 1)."""
    body = re.search(r"-----BEGIN (EC )?PRIVATE KEY-----\n(.*?)-----END", key.read_text(), re.DOTALL)[2]
    der = base64.b64decode("".join(body.split()))
    at = der.index(b"\x02\x01\x01\x04\x20") + 5
    return der[at:at + 32]


def pem_line(key: Path) -> bytes:
    """A line from the middle of a private key's text."""
    body = re.search(r"-----BEGIN (EC )?PRIVATE KEY-----\n(.*?)-----END", key.read_text(), re.DOTALL)[2]
    return body.split()[1][:24].encode()


@case(own=True)
def another_user_with_one_capability(t):
    server = t.server("user nobody", "group nogroup")
    client = t.client()
    t.ping_server(client)
    found = holds_little(server.process.pid)
    ids = {number for name in ("Uid", "Gid") for number in found[name].split()}
    if ids != {"65534"} or found["Groups"].split() not in ([], ["65534"]):
        raise Failure(f"{found['Uid']} {found['Gid']} {found['Groups']}")
    key = t.shared.authority.dir / "server.key"
    if key.stat().st_mode & 0o077:
        raise Failure("the key is for everybody: this proves nothing")
    seen = t.net.server.run("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "cat", key, check=False)
    if seen.returncode == 0:
        raise Failure("the running user can read the key")
    peer = Sixgate(t, t.net.clients[0], "client1", Wrap("tls-crypt", t.shared), ("user nobody", "group nogroup"))
    client.stop()
    peer.start()
    peer.wait_up()
    t.ping_server(peer)
    if holds_little(peer.process.pid)["Uid"].split()[1] != "65534":
        raise Failure("the client is somebody else")


@case(own=True)
def root_by_name_only(t):
    """`sixgate up` keeps its user, whose files the state folder's are, and nothing of root's power."""
    server = Up(t)
    server.ping(server.client(server.state / "clients" / "client1.ovpn"))
    holds_little(server.process.pid)
    for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
        holds_little(int(thread.name))


@case(own=True)
def system_calls_are_filtered_unless_there_are_scripts(t):
    """The filter of the kernel is on (2), for clients, too; a script is not let in by the back door."""
    server = t.server(f"sixgate-state {t.dir}")
    peer = Sixgate(t, t.net.clients[0], "client1", Wrap("tls-crypt", t.shared))
    peer.start()
    peer.wait_up()
    t.ping_server(peer)
    for process in (server.process, peer.process):
        if status(process.pid)["Seccomp"] != "2":
            raise Failure("no filter")
    if "system call filter on\n" not in t.sixgate("status", "--dir", t.dir).stdout:
        raise Failure("the status does not say so")
    server.config.write_text(server.config.read_text() + f"script-security 2\nclient-connect {script(t, 'fine.sh', 'exit 0')}\n")
    server.process.send(signal.SIGHUP)
    server.process.expect("a process that was started without scripts may not run any; restart the service")
    t.ping_server(peer)
    server.process.stop()
    mark = peer.process.mark()
    server.start()
    peer.process.send(signal.SIGUSR1)
    peer.wait_up_again(mark)
    if status(server.process.pid)["Seccomp"] != "0" or "filter off: there are scripts\n" not in t.sixgate("status", "--dir", t.dir).stdout:
        raise Failure("a filter that scripts would inherit")


# Numbers of x86_64.
GETPID, SOCKET, MMAP, CLONE, EXECVE, KILL, SETSOCKOPT, IO_URING_SETUP = 39, 41, 9, 56, 59, 62, 54, 425


@case(own=True)
def whoever_gets_in_cannot_call_the_kernel(t):
    """Calls made from inside a running server: what nobody needs is refused, and it serves on; another program would be
    its end."""
    server = t.server()
    client = t.client()
    t.ping_server(client)
    pid = server.process.pid
    if inject(pid, GETPID) != pid:
        raise Failure("an allowed call fails: this proves nothing")
    for what, number, arguments, error in (
        ("a socket for raw frames", SOCKET, (17, 3, 0), errno.EPERM),
        ("the firewall's netlink", SOCKET, (16, 3, 12), errno.EPERM),
        ("the firewall's options", SETSOCKOPT, (0, 0, 64), errno.EPERM),
        ("memory to write and run", MMAP, (0, 4096, 7, 0x22, -1, 0), errno.EPERM),
        ("another process", CLONE, (signal.SIGCHLD, 0, 0), errno.EPERM),
        ("a signal to another process", KILL, (1, 0), errno.ENOSYS),
        ("io_uring", IO_URING_SETUP, (1, 0), errno.ENOSYS),
    ):
        if (result := inject(pid, number, *arguments)) != -error:
            raise Failure(f"{what}: {result}")
    t.ping_server(client)
    if inject(pid, EXECVE, 0, 0, 0) is not None or server.process.wait() != -signal.SIGSYS:
        raise Failure("another program did not end it")


@case(own=True)
def what_is_needed_no_more_is_forgotten(t):
    server = Up(t)
    client = server.client(server.state / "clients" / "client1.ovpn")
    server.ping(client)
    found = memory(server.process.pid)
    if b"10.8.0.0" not in found and b"sixgate-server" not in found:
        raise Failure("this is not the server's memory")
    for what, secret in (("the authority's key", scalar(server.state / "ca.key")),
                         ("the text of the authority's key", pem_line(server.state / "ca.key"))):
        if secret in found:
            raise Failure(f"{what} is in memory still, {found.count(secret)} times")


@case(own=True)
def passwords_are_forgotten(t):
    """With the control channel that they came through: with the first renegotiation, which brings a token."""
    word = b"Xl0gin-w0rd"
    judge = script(t, "judge.sh", f'test "$password" = {word.decode()}')
    server = t.server("script-security 3", f"auth-user-pass-verify {judge} via-env", "auth-gen-token", "reneg-sec 4", "tran-window 2")
    login = t.write("login", f"anna\n{word.decode()}\n")
    client = t.client(f"auth-user-pass {login}")
    t.ping_server(client)
    if (copies := memory(server.process.pid).count(word)) > 1:
        raise Failure(f"{copies} copies of the password")
    server.process.expect("anna: its token is accepted")
    deadline = time.monotonic() + 15
    while word in (found := memory(server.process.pid)):
        if time.monotonic() > deadline:
            at = found.index(word)
            raise Failure(f"the password is in memory still: {found[at - 60:at + 60]!r}")
        time.sleep(0.5)
    if b"anna" not in found:
        raise Failure("this is not the server's memory")
