"""What goes wrong with a router around the server: it is killed at any moment, the flash is full or cannot be written,
the clock jumps, the device goes, system calls fail. What can be mended mends itself; the rest ends with one clear line."""

import os
import random
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from hooks import script
from lib.case import SIXGATE, case, tunnel_addresses
from lib.process import Failure, command
from up import Up

# Calls by which a command changes the state folder.
CHANGES = "openat,write,fsync,rename,unlink,mkdir,flock,close"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def failing(t, process, inject: str):
    """While it lasts, system calls of a process fail: `sendmsg:error=EAGAIN:when=1+3`."""
    tracer = t.process(["strace", "-f", "-p", process.worker, "-o", "/dev/null", "-e", f"trace={inject.split(':')[0]}",
                        "-e", f"inject={inject}"], f"strace-{re.sub('[^A-Za-z0-9]+', '-', inject)}")
    tracer.expect("attached")
    try:
        yield
    finally:
        tracer.stop(signal.SIGINT)


@contextmanager
def small_disk(t, size: str):
    """A file system of its own, as small as flash is."""
    folder = t.dir / "flash"
    folder.mkdir()
    command("mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=1000,mode=0700", "sixgate-test", folder)
    try:
        yield folder
    finally:
        command("umount", "--lazy", folder)


def server_on(t, disk) -> Up:
    """A server that has its state folder there, not running yet."""
    server = Up(t)
    server.stop()
    state = disk / "state"
    command("cp", "-a", server.state, state)
    conf = state / "server.conf"
    conf.write_text(conf.read_text().replace(str(server.state), str(state)))
    server.state = state
    return server


def listed(text: str) -> dict[str, str]:
    """What `client list` says of whom."""
    return dict(line.split()[:2] for line in text.splitlines()[1:] if not line.startswith("note:"))


def one_line(done, *words: str) -> None:
    """It has failed, and said so on one line."""
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("note:", "warning:"))]
    if done.returncode != 1 or len(lines) != 1 or not all(word in lines[0] for word in words):
        raise Failure(f"status {done.returncode}:\n{done.stdout}")


# ---- Killed at any moment -------------------------------------------------------------------------

def killed_at_each_call(t, state: Path, *arguments) -> int:
    """Runs a command again and again, killed at its first, second, ... change of the disk; returns how many there are."""
    for number in range(1, 400):
        done = t.net.server.run("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={CHANGES}", "-e",
                                f"inject={CHANGES}:signal=KILL:when={number}", SIXGATE, *arguments, "--dir", state,
                                check=False, timeout=60)
        # Killed after the last change, before it could say so: then the next one has nothing to do.
        if done.returncode == 0 or "there is a client" in done.stdout:
            return number
    raise Failure("it does not come to its end")


@case(own=True)
def killed_while_a_client_is_added(t):
    server = Up(t)
    server.stop()
    calls = killed_at_each_call(t, server.state, "client", "add", "phone")
    if calls < 20:
        raise Failure(f"killed at {calls} calls only: is that all it does?")
    found = server.command("client", "list")
    if "damaged" in found.stdout or listed(found.stdout).get("phone") != "valid":
        raise Failure(found.stdout)
    server.start()
    server.ping(server.client(server.state / "clients" / "phone.ovpn"))


@case(own=True)
def killed_while_a_client_is_revoked_or_set(t):
    server = Up(t)
    server.command("client", "add", "phone")
    server.command("client", "add", "laptop")
    server.stop()
    killed_at_each_call(t, server.state, "client", "set", "laptop", "ipv4=10.8.0.77")
    killed_at_each_call(t, server.state, "client", "totp", "laptop")
    killed_at_each_call(t, server.state, "client", "totp", "laptop", "--remove")
    profile = t.write("phone.ovpn", (server.state / "clients" / "phone.ovpn").read_text())
    killed_at_each_call(t, server.state, "client", "revoke", "phone")
    found = server.command("client", "list")
    if "damaged" in found.stdout or (listed(found.stdout)["phone"], listed(found.stdout)["laptop"]) != ("revoked", "valid"):
        raise Failure(found.stdout)
    server.start()
    laptop = server.client(server.state / "clients" / "laptop.ovpn")
    if laptop.v4 != "10.8.0.77":
        raise Failure(laptop.v4)
    server.ping(laptop)
    laptop.stop()
    server.client(profile, up=False)
    server.process.expect("certificate of 'phone' is revoked")


@case(own=True)
def killed_while_everything_is_made(t):
    """The first start: no moment leaves a folder that a later start cannot complete."""
    state = t.dir / "state"
    calls = killed_at_each_call(t, state, "init", "--endpoint", "203.0.113.1")
    if calls < 20:
        raise Failure(f"killed at {calls} calls only: is that all it does?")
    server = Up(t)
    server.ping(server.client(state / "clients" / "client1.ovpn"))


@case(own=True)
def a_server_killed_while_it_writes_leases(t):
    leases = t.dir / "leases"
    server = t.server(f"ifconfig-pool-persist {leases} 1")
    client = t.client()
    before = (client.v4, client.v6)
    rng, whole = random.Random(7), re.compile(rf"(#.*\n)*(client\d,{before[0]},{before[1]}\n)?")
    for _ in range(6):
        time.sleep(rng.uniform(0.8, 1.3))
        server.process.kill()
        if leases.exists() and not whole.fullmatch(leases.read_text()):
            raise Failure(f"half of a file: {leases.read_text()!r}")
        mark = client.process.mark()
        server.start()
        if server.process.seen(r"leases:\d+"):
            raise Failure(server.process.text())
        client.process.send(signal.SIGUSR1)
        client.wait_up_again(mark)
        if (client.v4, client.v6) != before:
            raise Failure(f"{client.v4} {client.v6} after {before}")
    t.ping_server(client)


# ---- The disk -------------------------------------------------------------------------------------

@case(own=True)
def a_full_flash(t):
    with small_disk(t, "1m") as flash:
        server = server_on(t, flash)
        state = server.state
        with open(state / "server.conf", "a") as conf:
            conf.write(f"ifconfig-pool-persist {state}/leases 1\n")
        server.start()
        with open(flash / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(1024))
            except OSError:
                pass
        before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
        client = server.client(state / "clients" / "client1.ovpn")
        server.process.expect("error: cannot write .*leases: .*No space left")
        server.ping(client)
        one_line(server.command("client", "add", "phone", check=False), "cannot write", "No space left")
        one_line(server.command("client", "revoke", "client1", check=False), "cannot write", "No space left")
        changed = [path.name for path, text in before.items() if path.read_bytes() != text and path.name != "leases"]
        if changed:
            raise Failure(f"{changed} changed")
        time.sleep(2)
        if server.process.count("cannot write") != 1:
            raise Failure("the same error again and again")
        server.ping(client)
        # A new start, as after a crash, works as well.
        server.process.kill()
        mark = client.process.mark()
        server.start()
        client.process.send(signal.SIGUSR1)
        client.wait_up_again(mark)
        server.ping(client)
        (flash / "filler").unlink()
        server.command("client", "add", "phone")
        if listed(server.command("client", "list").stdout) != {"client1": "valid", "phone": "valid"}:
            raise Failure(server.command("client", "list").stdout)
        server.stop()
        client.stop()


@case(own=True)
def a_read_only_state_folder(t):
    with small_disk(t, "4m") as flash:
        server = server_on(t, flash)
        state = server.state
        command("mount", "-o", "remount,ro", flash)
        server.start()
        client = server.client(state / "clients" / "client1.ovpn")
        server.ping(client)
        one_line(server.command("client", "add", "phone", check=False), "Read-only file system")
        one_line(server.command("client", "revoke", "client1", check=False), "Read-only file system")
        one_line(server.command("client", "set", "client1", "ipv4=10.8.0.9", check=False), "Read-only file system")
        if listed(server.command("client", "list").stdout) != {"client1": "valid"}:
            raise Failure("the list does not read")
        server.ping(client)
        server.stop()
        client.stop()


# ---- The clock ------------------------------------------------------------------------------------

@case(clients=2, own=True)
def the_clock_jumps(t):
    """Forwards by days, back to 1970 and to now: tunnels stay, keys are renewed, newcomers get in."""
    server = Up(t)
    server.command("client", "add", "phone")
    server.stop()
    clock = t.write("clock", "+0\n")
    conf = server.state / "server.conf"
    conf.write_text(conf.read_text().replace("verb 3", "verb 4") + "reneg-sec 6\n")
    server.process = t.process(t.net.server.inside(
        "env", "LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", f"FAKETIME_TIMESTAMP_FILE={clock}",
        "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", SIXGATE, "up", "--dir", server.state), "server")
    server.process.expect("running: ")
    first = server.client(server.state / "clients" / "client1.ovpn")
    mark = first.process.mark()
    for jump in ("+3d", "-3d", "-20000d", "+0"):
        clock.write_text(f"{jump}\n")
        keys = server.process.count("key \\d is in use")
        deadline = time.monotonic() + 30
        while server.process.count("key \\d is in use") < keys + 2:
            if time.monotonic() > deadline:
                raise Failure(f"after a jump by {jump}, keys are not renewed")
            server.ping(first)
        second = server.client(server.state / "clients" / "phone.ovpn", number=2)
        server.ping(second)
        server.ping(first)
        second.stop()
    if not re.search("^1972-", server.process.text(), re.MULTILINE) or server.process.seen("panicked"):
        raise Failure("the clock did not jump")
    if first.process.seen("SIGUSR1|Initialization Sequence Completed", after=mark):
        raise Failure("the tunnel did not stay")


# ---- The device and addresses ---------------------------------------------------------------------

@case(own=True)
def the_device_is_deleted(t):
    server = Up(t)
    client = server.client(server.state / "clients" / "client1.ovpn")
    for _ in range(2):
        # One that goes as soon as it is there is not made again.
        time.sleep(1.5)
        mark, ours = client.process.mark(), server.process.mark()
        t.net.server.ip("link del tun0")
        server.process.expect("the TUN device tun0 was removed by another program; starting over", after=ours)
        server.process.expect("running: tun0", after=ours)
        client.wait_up_again(mark)
        server.ping(client)


@case(own=True)
def the_servers_address_goes_and_comes(t):
    host = t.net.server
    server = t.server()
    client = t.client("ping 1", "ping-restart 30", transport=6)
    t.ping_server(client)
    mark = client.process.mark()
    host.ip(f"addr del {host.v6}/64 dev eth0")
    t.no_ping(client.host, "10.8.0.1")
    host.ip(f"addr add {host.v6}/64 dev eth0 nodad")
    t.until_ping(client.host, "10.8.0.1", timeout=15)
    t.ping_server(client)
    # Another one beside it, which the kernel may like better, must not be what answers come from.
    host.ip("addr add 2001:db8:6::ff/64 dev eth0 nodad preferred_lft 100", f"addr change {host.v6}/64 dev eth0 preferred_lft 0")
    t.ping_server(client)
    server.alive()
    if client.process.seen("SIGUSR1", after=mark):
        raise Failure("the connection did not stay")


# ---- System calls ---------------------------------------------------------------------------------

@case(alone=True, own=True)
def calls_fail_now_and_then(t):
    server = t.server()
    client = t.client()
    t.ping_server(client)
    for call in ("recvmmsg", "sendmmsg", "sendmsg", "readv", "writev", "poll,ppoll"):
        for error in ("EAGAIN", "ENOBUFS", "EMSGSIZE", "EPERM"):
            before = cpu_seconds(server.process.worker)
            with failing(t, server.process, f"{call}:error={error}:when=3+7"):
                done = client.host.run("ping", "-n", "-q", "-i", "0.02", "-c", 40, "-W", 1, "10.8.0.1", check=False)
                found = re.search(r"(\d+) received", done.stdout)
                if not found or int(found[1]) < 20:
                    raise Failure(f"{call} fails with {error} now and then: {done.stdout}")
            if cpu_seconds(server.process.worker) - before > 2:
                raise Failure(f"{call} fails with {error}: the server is busy with that")
            server.alive()
    t.ping_server(client)
    t.iperf(client.host, t.net.server, "10.8.0.1", mebibytes=2)
    if len(server.process.text().splitlines()) > 80:
        raise Failure("a line for each failure")


@case(alone=True, own=True)
def calls_fail_for_good_for_a_while(t):
    """All datagrams are refused, then it is over: the same tunnel goes on."""
    server = t.server()
    client = t.client()
    mark = client.process.mark()
    for call in ("sendmmsg", "sendmsg", "recvmmsg", "readv", "writev"):
        for error in ("EAGAIN", "ENOBUFS", "EMSGSIZE"):
            with failing(t, server.process, f"{call}:error={error}"):
                client.host.run("ping", "-n", "-q", "-i", "0.05", "-c", 10, "-W", 1, "10.8.0.1", check=False)
                before = cpu_seconds(server.process.worker)
                time.sleep(0.5)
                # The tracer makes each call dear; one that is tried without a pause takes all there is.
                if call.startswith("send") and cpu_seconds(server.process.worker) - before > 0.3:
                    raise Failure(f"{call} fails with {error}: the server does nothing else")
            t.until_ping(client.host, "10.8.0.1", timeout=5)
    t.ping_server(client)
    server.alive()
    if client.process.seen("SIGUSR1", after=mark):
        raise Failure("the connection did not stay")


def limit_descriptors(t, pid: int, count: int) -> None:
    """As the process's own user, who may do so where root may not: in a container."""
    user = Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[0]
    group = Path(f"/proc/{pid}/status").read_text().split("Gid:")[1].split()[0]
    t.net.server.run("setpriv", "--reuid", user, "--regid", group, "--clear-groups", "prlimit", "--pid", pid, f"--nofile={count}:")


@case(clients=2, own=True)
def no_more_descriptors(t):
    server = t.server(f"sixgate-state {t.dir}", f"management {t.dir}/manage unix", "script-security 2",
                      f"client-connect {script(t, 'fine.sh', 'exit 0')}")
    client = t.client()
    pid = server.process.worker
    used = len(os.listdir(f"/proc/{pid}/fd"))
    limit_descriptors(t, pid, used)
    # Somebody wants in at each door.
    asker = subprocess.Popen([SIXGATE, "status", "--dir", t.dir], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    manager = t.process(["python3", "-c", "import socket, time; s = socket.socket(socket.AF_UNIX);"
                         f"s.connect('{t.dir}/manage'); time.sleep(60)"], "manager")
    second = t.client(number=2, up=False)
    before = cpu_seconds(pid)
    t.ping(client.host, "10.8.0.1", count=40, interval=0.05)
    spent = cpu_seconds(pid) - before
    if spent > 0.5:
        raise Failure(f"without descriptors, {spent} s of 2 s are spent on trying")
    server.process.expect("client-connect.*(Too many open files|No file descriptors)|refused")
    manager.kill()
    asker.kill()
    asker.wait()
    limit_descriptors(t, pid, 1024)
    second.process.kill()
    second = t.client(number=2)
    t.ping_server(client)
    if "clients 2" not in t.sixgate("status", "--dir", t.dir).stdout:
        raise Failure("the server does not answer any more")
    server.alive()


@case(clients=2, own=True)
def a_hook_that_hangs(t):
    """It is ended when the client's time is up; nobody else waits."""
    hang = script(t, "hang.sh", 'test "$common_name" != client1 || sleep 1000')
    server = t.server("script-security 2", f"client-connect {hang}", "hand-window 5")
    first, second = t.client(number=1, up=False), t.client(number=2)
    t.ping_server(second)
    server.process.expect("client-connect.*(given up|ended|too long|killed|time)", timeout=30)
    t.ping_server(second)
    if command("pgrep", "-f", f"^/bin/sh {hang}", check=False).stdout.count("\n") > 1:
        raise Failure("hanging hooks pile up")
    if first.process.seen(first.UP):
        raise Failure("it is in")


@case(own=True)
def news_of_the_network_that_get_lost(t):
    """The netlink socket overruns: the server looks for itself, and again if that fails, too."""
    server = t.server("server-ipv6 auto fd00:10:8::/64", v6=False)
    t.client()
    with failing(t, server.process, "recvfrom:error=ENOBUFS:when=1+1"):
        t.net.server.ip("addr add 2001:db8:a:1::1/64 dev tun0 nodad")
        time.sleep(2)
        server.alive()
    server.process.expect("clients have addresses in 2001:db8:a:1::/64 from now on", timeout=20)
    address = tunnel_addresses(t.net.server)[1]
    if not address:
        raise Failure("no address on the device")
