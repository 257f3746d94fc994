"""What a running process may do, what it can read, and what it still knows."""

import base64
import errno
import hashlib
import os
import re
import signal
import time
from pathlib import Path

from client_host import Sixgate
from hooks import script
from lib import pki
from lib.case import SIXGATE, case, tunnel_addresses
from lib.inject import inject
from lib.peers import Client, Wrap
from lib.process import Failure, command, until, worker
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


def sockets(pid: int) -> dict[str, str]:
    """What kinds of sockets a process has open: the kernel's tables of its network that name them."""
    own = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()}
    tables = {}
    for kind in ("udp", "udp6", "tcp", "tcp6", "raw", "raw6", "packet", "netlink", "unix"):
        path = Path(f"/proc/{pid}/net/{kind}")
        inodes = re.findall(r"\d+", path.read_text()) if path.exists() else []
        if any(f"socket:[{inode}]" in own for inode in inodes):
            tables[kind] = path.read_text()
    return tables


def divided(t, process, *keys: Path) -> None:
    """Two processes: one has the network and next to no rights, the other all rights and no network."""
    if process.worker == process.pid:
        raise Failure("there is one process only")
    tasks = [int(thread.name) for thread in Path(f"/proc/{process.worker}/task").iterdir()]
    for task in tasks:
        found = holds_little(task)
        ids = found["Uid"].split() + found["Gid"].split()
        if "0" in ids or found["Groups"].split() not in ([], [ids[-1]]):
            raise Failure(f"task {task} is {found['Uid']} {found['Gid']} {found['Groups']}")
        if found["Seccomp"] != "2":
            raise Failure(f"task {task} has no filter")
    if not {"udp", "udp6"} & sockets(process.worker).keys() or "netlink" not in sockets(process.worker):
        raise Failure(f"the worker has {sockets(process.worker).keys()}")
    if sockets(process.pid).keys() - {"unix"}:
        raise Failure(f"the keeper has {sockets(process.pid).keys()}")
    uid, gid = ids[0], ids[4]
    for key in keys:
        if not key.read_bytes():
            raise Failure(f"{key} is empty")
        for way in (["cat", key], ["sh", "-c", f"echo >>{key}"], ["ls", f"/proc/{process.pid}/fd"], ["cat", f"/proc/{process.pid}/environ"]):
            done = t.net.server.run("setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", *way, check=False)
            if done.returncode == 0 or "denied" not in done.stdout:
                raise Failure(f"the running user can do {way}: {done.stdout}")


def passable(folder: Path) -> None:
    """Anybody may go through these folders, so that it is the files themselves that are closed."""
    for each in (folder, *folder.parents):
        if each.stat().st_mode & 0o001 == 0:
            each.chmod(each.stat().st_mode | 0o011)


@case(own=True)
def up_is_two_processes(t):
    """No key can be read by who handles packets, and everything that needs root goes on."""
    server = Up(t)
    client = server.client(server.state / "clients" / "client1.ovpn")
    server.ping(client)
    passable(server.state)
    keys = [server.state / name for name in ("ca.key", "server.pem", "tls-crypt-v2.key", "server.conf", "clients/client1.ovpn")]
    divided(t, server.process, *keys)
    # A change that takes effect at once, one that has everything opened anew, and a mistake.
    conf, pid, first = server.state / "server.conf", server.process.pid, server.process.worker
    conf.write_text(conf.read_text() + "keepalive 7 77\n")
    server.process.send(signal.SIGHUP)
    server.process.expect("the new configuration is in force")
    if server.process.worker != first:
        raise Failure("another process")
    mark = client.process.mark()
    conf.write_text(conf.read_text() + f"dev tun7\nwritepid {t.dir}/pid\n")
    server.process.send(signal.SIGHUP)
    server.process.expect("running: tun7")
    if server.process.worker in (first, pid) or int((t.dir / "pid").read_text()) != pid:
        raise Failure("not started over as it should be")
    divided(t, server.process, *keys)
    client.wait_up_again(mark)
    t.ping(client.host, tunnel_addresses(t.net.server, "tun7")[1])
    whole = conf.read_text()
    conf.write_text(whole + "no-such-thing\n")
    server.process.send(signal.SIGHUP)
    server.process.expect("the old one stays in force: it has mistakes")
    if not server.process.seen("unknown|no-such-thing"):
        raise Failure("not a word about the mistake")
    conf.write_text(whole)
    # Clients' own files, new or not, and certificates that are void.
    mark = client.process.mark()
    server.command("client", "set", "client1", "ipv4=" + tunnel_addresses(t.net.server, "tun7")[0].rpartition(".")[0] + ".77")
    client.wait_up_again(mark)
    if not tunnel_addresses(client.host)[0].endswith(".77"):
        raise Failure(f"it has {tunnel_addresses(client.host)}")
    server.command("client", "revoke", "client1")
    server.process.expect("(?i)client1.*revoked")
    server.process.stop()
    if (t.dir / "pid").exists() or Path(f"/proc/{first}").exists():
        raise Failure("something is left behind")
    if "no server is running" not in (answer := server.command("status", check=False).stdout):
        raise Failure(answer)


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@case(clients=2, own=True)
def a_servers_files_are_the_keepers_business(t):
    """A configuration of its own, without `user`: leases, status, log, revocation list, sockets."""
    authority = pki.Authority(t.dir / "pki")
    identities = {name: authority.issue(name, usage=usage)
                  for name, usage in (("server", "server"), ("client1", "client"), ("client2", "client"))}
    folder = t.dir / "files"
    folder.mkdir(mode=0o700)
    log, crl = folder / "log", folder / "crl.pem"
    crl.write_bytes(authority.crl().read_bytes())
    server = t.server(f"ifconfig-pool-persist {folder}/leases 1", f"status {folder}/status 1", f"log-append {log}",
                      f"crl-verify {crl}", f"management {folder}/manage unix", f"sixgate-state {folder}",
                      identity=identities["server"], ca=authority.cert)
    one, two = (t.client(number=n, identity=identities[f"client{n}"], ca=authority.cert) for n in (1, 2))
    passable(t.dir)
    divided(t, server.process, identities["server"][0], log)
    until(lambda: "client1,10.8.0.2" in text(folder / "leases"), "no lease is written")
    if status(server.process.worker)["Uid"].split()[0] == str((folder / "leases").stat().st_uid) or (folder / "leases").stat().st_mode & 0o077:
        raise Failure("the leases are the worker's, or everybody's")
    until(lambda: "client1" in text(folder / "status"), "no status is written")
    # Who handles packets cannot open them itself.
    log.rename(folder / "log.1")
    server.config.write_text(server.config.read_text().replace(f"{folder}/status 1", f"{folder}/status2 1"))
    server.process.send(signal.SIGHUP)
    until(lambda: "in force" in text(log), "no log in the place of the one moved away")
    until(lambda: "client1" in text(folder / "status2"), "no status in its new place")
    two.stop()
    authority.revoke("client2")
    # Its time stamp tells that it changed.
    time.sleep(0.1)
    crl.write_bytes(authority.crl().read_bytes())
    two.start()
    until(lambda: "revoked" in text(log), "the revocation list is not read again")
    two.process.kill()
    t.ping_server(one)
    if server.process.worker == server.process.pid or not one.v4 == "10.8.0.2":
        raise Failure("not as it was")
    server.process.stop()
    digest = hashlib.sha256(bytes(folder.resolve())).hexdigest()[:16]
    for left in (folder / "manage", folder / "control", Path("/var/run/sixgate") / digest):
        if left.exists():
            raise Failure(f"left behind: {left}")
    mark = one.process.mark()
    (folder / "leases").write_text((folder / "leases").read_text().replace("10.8.0.2", "10.8.0.9"))
    server.start()
    one.process.send(signal.SIGUSR1)
    one.wait_up_again(mark)
    if one.v4 != "10.8.0.9":
        raise Failure(f"{one.v4} after a new start")


@case(own=True)
def the_keeper_renews_certificates(t):
    """With the authority's key, which the process that shows the certificate cannot read."""
    state = t.dir / "state"
    t.net.server.run(SIXGATE, "init", "--dir", state, "--endpoint", "203.0.113.1")
    pem = state / "server.pem"
    (t.dir / "usage").write_text("extendedKeyUsage = serverAuth\nkeyUsage = digitalSignature\n")
    command("openssl", "req", "-new", "-key", pem, "-subj", "/CN=sixgate-server", "-out", t.dir / "request")
    command("openssl", "x509", "-req", "-in", t.dir / "request", "-CA", state / "ca.crt", "-CAkey", state / "ca.key",
                    "-days", "9", "-extfile", t.dir / "usage", "-out", t.dir / "short.crt")
    key = pem.read_text()[pem.read_text().index("-----BEGIN PRIVATE KEY"):]
    pem.write_text((t.dir / "short.crt").read_text() + key)
    before, issued = pem.read_text(), (state / "issued").read_text()
    server = t.process(t.net.server.inside(SIXGATE, "run", state / "server.conf"), "server")
    server.expect("the server's certificate is renewed, now until ")
    passable(state)
    divided(t, server, state / "ca.key", pem)
    if pem.read_text() == before or pem.stat().st_mode & 0o077 or len((state / "issued").read_text()) <= len(issued):
        raise Failure("it is not in the state folder")
    client = Client(t, t.net.clients[0], "client1", Wrap("none", t.shared), profile=state / "clients" / "client1.ovpn")
    client.start()
    client.wait_up()
    for number, pid in enumerate((server.pid, server.worker)):
        if scalar(state / "ca.key") in memory(pid):
            raise Failure(f"the authority's key is in memory still, of process {number}")
    year = re.search(r"certificate of the server until (\d+)", t.sixgate("status", "--dir", state).stdout)[1]
    if int(year) < time.gmtime().tm_year + 1:
        raise Failure(f"the certificate in use ends in {year}")


@case(own=True)
def neither_process_outlives_the_other(t):
    """Killed, either takes the other along at once, with one line; the next start finds nothing in its way."""
    server = Up(t)
    conf = server.state / "server.conf"
    conf.write_text(conf.read_text() + f"writepid {t.dir}/pid\nmanagement {t.dir}/manage unix\n")
    server.stop()
    for victim, line in ("worker", "the process that handles packets was ended by signal 9"), ("pid", "the keeper, its other process, is gone"):
        server.start()
        both = {server.process.pid, server.process.worker}
        if len(both) != 2 or int((t.dir / "pid").read_text()) != server.process.pid:
            raise Failure("the pid file names another process")
        os.kill(getattr(server.process, victim), signal.SIGKILL)
        until(lambda: server.process.seen(line), f"not a word: {line}")
        until(lambda: not any(Path(f"/proc/{pid}").exists() and "Z" not in status(pid)["State"] for pid in both), "an orphan", timeout=3)
        if victim == "worker" and (server.process.wait() != 1 or (t.dir / "pid").exists() or (t.dir / "manage").exists()):
            raise Failure("not ended as it should be")
        if len(re.findall("(?m)^sixgate: |panicked", server.process.text())) != 1:
            raise Failure(server.process.text())
        server.process.kill()
    server.start()
    server.ping(server.client(server.state / "clients" / "client1.ovpn"))


@case(own=True)
def in_the_background_there_are_two_as_well(t):
    """What the caller waits for ends when everything is open, or says what is wrong."""
    state = t.dir / "state"
    t.net.server.run(SIXGATE, "init", "--dir", state, "--endpoint", "203.0.113.1")
    conf = state / "server.conf"
    conf.write_text(conf.read_text() + f"daemon\nwritepid {t.dir}/pid\nlog {t.dir}/log\n")
    t.net.server.run(SIXGATE, "run", conf)
    pid = int((t.dir / "pid").read_text())
    try:
        both = {pid, worker(pid)}
        if len(both) != 2:
            raise Failure("there is one process only")
        until(lambda: "running: " in text(t.dir / "log"), "it does not run")
        for each in both:
            if {str(Path(f"/proc/{each}/fd/{n}").readlink()) for n in range(3)} != {"/dev/null"}:
                raise Failure("standard streams are open")
            if Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()[4] != "0":
                raise Failure("it has a terminal")
        second = t.net.server.run(SIXGATE, "run", conf, check=False)
        if second.returncode != 1 or "already running" not in second.stdout:
            raise Failure(f"{second.returncode} {second.stdout}")
        if pid != int((t.dir / "pid").read_text()):
            raise Failure("the pid file is the second one's")
    finally:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not any(Path(f"/proc/{each}").exists() for each in both), "it does not end")
    if (t.dir / "pid").exists():
        raise Failure("the pid file is left behind")


@case(own=True)
def system_calls_are_filtered_unless_there_are_scripts(t):
    """Without a keeper, scripts would inherit the filter; one is not let in by the back door."""
    server = t.server(f"sixgate-state {t.dir}", "user nobody")
    peer = Sixgate(t, t.net.clients[0], "client1", Wrap("tls-crypt", t.shared))
    passable(t.dir)
    server.config.chmod(0o644)
    peer.start()
    peer.wait_up()
    t.ping_server(peer)
    for process in (server.process, peer.process):
        if status(process.worker)["Seccomp"] != "2":
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


@case(own=True)
def scripts_are_the_keepers_children(t):
    """They are root, as OpenVPN's, and who handles packets is not; neither a start nor a change is different for them."""
    told = t.dir / "told"
    note = f'(id -u; grep -e CapEff -e PPid /proc/self/status; echo "$script_type $common_name $own") >>{told}'
    judge = script(t, "judge.sh", note)
    server = t.server(f"sixgate-state {t.dir}", "script-security 2", f"up {judge}", f"down {judge}", "setenv own 7")
    server.process.expect("running: ")
    divided(t, server.process, t.shared.authority.dir / "server.key")
    server.config.write_text(server.config.read_text() + f"client-connect {judge}\nclient-disconnect {judge}\n")
    server.process.send(signal.SIGHUP)
    server.process.expect("the new configuration is in force")
    client = t.client()
    t.ping_server(client)
    if "system call filter on\n" not in t.sixgate("status", "--dir", t.dir).stdout:
        raise Failure("no filter")
    keeper = status(server.process.pid)["CapEff"]
    server.process.stop()
    lines = text(told).splitlines()
    if [line.split()[0] for line in lines[3::4]] != ["up", "client-connect", "client-disconnect", "down"]:
        raise Failure(f"not all were run: {lines}")
    if lines[7] != "client-connect client1 7" or set(lines[0::4]) != {"0"}:
        raise Failure(f"{lines}")
    if any(keeper not in line for line in lines[2::4] + lines[1::4] if line.startswith("CapEff")):
        raise Failure(f"less than the keeper has, {keeper}: {lines}")
    # One that hangs goes with the process that asked for it.
    server.config.write_text(server.config.read_text() + f"client-connect {script(t, 'hang.sh', 'echo $$ >' + str(t.dir / 'hung') + '; exec sleep 77')}\n")
    server.start()
    client.process.kill()
    client.start()
    until(lambda: text(t.dir / "hung").strip(), "it is not run")
    hung = int(text(t.dir / "hung"))
    os.kill(server.process.worker, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{hung}").exists() or "Z" in status(hung)["State"], "the script goes on", timeout=5)
    if server.process.wait() != 1:
        raise Failure("the keeper goes on")


# Numbers of x86_64.
GETPID, SOCKET, MMAP, CLONE, EXECVE, KILL, SETSOCKOPT, IO_URING_SETUP = 39, 41, 9, 56, 59, 62, 54, 425


@case(own=True)
def whoever_gets_in_cannot_call_the_kernel(t):
    """Calls made from inside a running server: what nobody needs is refused, and it serves on; another program would be
    its end."""
    server = t.server()
    client = t.client()
    t.ping_server(client)
    pid = server.process.worker
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
    if inject(pid, EXECVE, 0, 0, 0) is not None:
        raise Failure("another program did not end it")
    # Who traces a process hears of its end first, and has to have heard.
    os.waitpid(pid, 0)
    if server.process.wait() != 1:
        raise Failure("the keeper goes on alone")
    server.process.expect(f"handles packets was ended by signal {signal.SIGSYS.value}", dies=True)


@case(own=True)
def what_is_needed_no_more_is_forgotten(t):
    server = Up(t)
    client = server.client(server.state / "clients" / "client1.ovpn")
    server.ping(client)
    found = memory(server.process.worker)
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
    if (copies := memory(server.process.worker).count(word)) > 1:
        raise Failure(f"{copies} copies of the password")
    server.process.expect("anna: its token is accepted")
    deadline = time.monotonic() + 15
    while word in (found := memory(server.process.worker)):
        if time.monotonic() > deadline:
            at = found.index(word)
            raise Failure(f"the password is in memory still: {found[at - 60:at + 60]!r}")
        time.sleep(0.5)
    if b"anna" not in found:
        raise Failure("this is not the server's memory")
