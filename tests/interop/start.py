"""Starting: what cannot work ends with one clear line; what can, gives its privileges away."""

import re
import time

from lib.case import SIXGATE, add, case
from lib.process import Failure


def one_line(done, pattern: str) -> None:
    """Fails unless the command failed and its last line, the only error, matches."""
    errors = [line for line in done.stdout.splitlines() if line.startswith("sixgate: ")]
    if done.returncode == 0 or len(errors) != 1 or not re.search(pattern, errors[0]):
        raise Failure(f"exit status {done.returncode}, /{pattern}/ expected as the only error:\n{done.stdout}")


@case(own=True)
def a_port_in_use(t):
    holder = t.process(t.net.server.inside("python3", "-c", """
import socket, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("::", 1194)); print("bound", flush=True); time.sleep(60)
"""), "holder")
    holder.expect("(?m)^bound")
    server = t.server(start=False)
    one_line(t.sixgate("run", server.config, host=t.net.server, check=False), "1194.*in use|in use.*1194")


@case(own=True)
def not_root(t):
    server = t.server(start=False)
    # The files are root's, too, but that is not what is wrong.
    done = t.net.server.run("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all",
                            "--inh-caps=-all", SIXGATE, "run", server.config, check=False)
    one_line(done, "not root")
    done = t.net.server.run("setpriv", "--bounding-set=-all", "--inh-caps=-all", SIXGATE, "run", server.config, check=False)
    one_line(done, "CAP_NET_ADMIN")


@case(own=True)
def no_tun_device(t):
    server = t.server(start=False)
    done = t.net.server.run("sh", "-ec", 'mount -t tmpfs none /dev; exec "$@"', "sh", SIXGATE, "run", server.config, check=False)
    one_line(done, "/dev/net/tun")


@case(own=True)
def an_unreadable_key(t):
    server = t.server(start=False, identity=(t.dir / "missing.key", t.shared.authority.dir / "server.crt"))
    one_line(t.sixgate("run", server.config, host=t.net.server, check=False), "missing.key")


@case(own=True)
def a_key_that_is_not_the_certificates(t):
    other = t.shared.authority.issue("other-server", usage="server")
    server = t.server(start=False, identity=(other[0], t.shared.authority.dir / "server.crt"))
    one_line(t.sixgate("run", server.config, host=t.net.server, check=False), "(?i)key")


@case(own=True)
def an_unknown_directive(t):
    config = t.server(start=False).config
    with open(config, "a") as text:
        text.write("keepalife 10 60\n")
    number = len(config.read_text().splitlines())
    for command in ("check", "run"):
        one_line(t.sixgate(command, config, host=t.net.server, check=False), f"server.conf:{number}: .*keepalife.*keepalive")


@case(own=True)
def check_says_what_would_be_done(t):
    server = t.server("fast-io", "duplicate-cn", start=False)
    done = t.sixgate("check", server.config)
    for expected in ("1194", "10.8.0.0/24", "fd00:10:8::/64", "tun0", "tls-crypt"):
        if expected not in done.stdout:
            raise Failure(f"nothing about {expected}:\n{done.stdout}")
    if not re.search(r"warning: .*server\.conf:\d+: `fast-io` has no effect", done.stdout):
        raise Failure(f"no warning about fast-io:\n{done.stdout}")


@case(own=True)
def called_like_openvpn(t):
    """`--config FILE --dev X` and more, as init scripts call it."""
    server = t.server(start=False)
    process = t.process(t.net.server.inside(
        SIXGATE, "--config", server.config, "--dev", "tun7", "--writepid", t.dir / "pid", "--verb", "4"), "server")
    server.process = process
    server.wait_running()
    t.ping_server(t.client())
    t.net.server.run("ip", "link", "show", "dev", "tun7")
    if int((t.dir / "pid").read_text()) != process.pid:
        raise Failure("the pid file names another process")


@case(own=True)
def privileges_are_given_away(t):
    server = t.server("user nobody", "group nogroup", "reneg-sec 3")
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{server.process.pid}/status") if ":\t" in line)
    if status["Uid"].split() != ["65534"] * 4 or status["Gid"].split() != ["65534"] * 4 or status["Groups"].split() not in ([], ["65534"]):
        raise Failure(f"runs as {status['Uid']} {status['Gid']} {status['Groups']}")
    if any(int(status[name], 16) & ~(1 << 12) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")):
        raise Failure(f"more than CAP_NET_ADMIN is left: {status}")
    client = t.client()
    time.sleep(4)
    t.ping_server(client)
    server.alive()


def families(proto: str, works: tuple[int, ...]):
    def run(t):
        server = t.server(start=False)
        server.config.write_text(server.config.read_text().replace("proto udp\n", f"proto {proto}\n"))
        server.start()
        for transport in (4, 6):
            client = t.client("connect-timeout 3", transport=transport, up=transport in works)
            if transport in works:
                t.ping_server(client)
            else:
                time.sleep(3)
                if client.process.seen(client.UP):
                    raise Failure(f"{proto} answers IPv{transport}")
            client.process.kill()
    return run


# As with stock OpenVPN, `udp6` is a socket for both families unless it is told otherwise.
for proto, works in (("udp", (4, 6)), ("udp4", (4,)), ("udp6", (4, 6))):
    add("start", f"proto-{proto}", families(proto, works), own=True)


@case(own=True)
def local_address(t):
    """`local` binds to one address, and answers come from it."""
    t.net.server.ip("addr add 203.0.113.2/24 dev eth0")
    t.server("local 203.0.113.2")
    stranger = t.client("connect-timeout 3", up=False)
    profile = t.dir / "client1.conf"
    time.sleep(3)
    if stranger.process.seen(stranger.UP):
        raise Failure("another address answers")
    stranger.process.kill()
    profile.write_text(profile.read_text().replace("203.0.113.1 ", "203.0.113.2 "))
    stranger.start()
    stranger.wait_up()
    t.ping_server(stranger)


@case(own=True)
def answers_come_from_the_address_that_was_asked(t):
    """A server with several addresses and no `local`: stock clients drop answers from another one."""
    t.net.server.ip("addr add 203.0.113.2/24 dev eth0", "addr add 2001:db8:6::2/64 dev eth0 nodad")
    t.server()
    for transport, first, second in ((4, "203.0.113.1 ", "203.0.113.2 "), (6, "2001:db8:6::1 ", "2001:db8:6::2 ")):
        client = t.client(transport=transport, up=False)
        client.process.kill()
        client.config.write_text(client.config.read_text().replace(first, second))
        client.start()
        client.wait_up()
        t.ping_server(client)
        client.stop()
