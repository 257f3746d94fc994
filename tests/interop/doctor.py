"""`sixgate doctor` on a host where things are broken one after the other: each is named with its cure,
and is gone once the cure is applied."""

import re
import time

from lib.case import SIXGATE, case
from lib.process import Failure
from up import Up

FINE = "nothing stands in the way"


class Patient:
    """A server's host that has all it needs, and what the doctor says of it."""

    def __init__(self, t):
        self.t = t
        self.host = t.net.server
        self.host.ip("link add lan0 type bridge", "link set lan0 up", "addr add 192.168.1.1/24 dev lan0",
                     "route add default via 203.0.113.254 dev eth0", "route add default via 2001:db8:6::fe dev eth0")
        self.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.server = Up(t)
        self.state = self.server.state

    def ask(self, *options, before: str = "true"):
        """The doctor's words and exit status; `before` happens in a mount namespace of its own."""
        line = f'{before}; exec "$@"'
        return self.host.run("sh", "-c", line, "sh", SIXGATE, "doctor", "--dir", self.state, *options, check=False)

    def fine(self, *options, notes: bool = False) -> None:
        done = self.ask(*options)
        if done.returncode != 0 or (not notes and FINE not in done.stdout):
            raise Failure(f"not healthy: {done.stdout}")

    def finds(self, weight: str, text: str, cure: str, *options, before: str = "true") -> str:
        """The one finding; its cure."""
        done = self.ask(*options, before=before)
        found = re.findall(r"^(mend|note): (.*)\n      -> (.*)$", done.stdout, re.M)
        if len(found) != 1 or found[0][0] != weight or text not in found[0][1] or cure not in found[0][2]:
            raise Failure(f"expected {weight}: {text} -> {cure}\n{done.stdout}")
        if done.returncode != (1 if weight == "mend" else 0):
            raise Failure(f"exit status {done.returncode} for {weight}: {text}")
        return found[0][2]

    def apply(self, cure: str) -> None:
        self.host.run("sh", "-ec", cure)
        self.fine()


@case(own=True)
def network(t):
    patient = Patient(t)
    host = patient.host
    patient.fine()
    for switch, family in (("net.ipv4.ip_forward", "IPv4"), ("net.ipv6.conf.all.forwarding", "IPv6")):
        host.run("sysctl", "-qw", f"{switch}=0")
        # Without forwarding, the kernel may forget the default route of IPv6.
        patient.apply(patient.finds("mend", f"{family} forwarding is off", f"sysctl -w {switch}=1"))
    rules = ("table inet filter { chain input { type filter hook input priority 0; policy drop; "
             "ct state established,related accept; iif lo accept; jump services; }; "
             "chain services { udp dport %s accept; tcp dport 22 accept; }; }")
    host.run("nft", "-f", "-", input=rules % "{ 53, 1000-1100 }")
    patient.apply(patient.finds("mend", "the firewall drops UDP port 1194", "nft insert rule inet filter input udp dport 1194 accept"))
    host.run("nft", "-f", "-", input="flush ruleset\n" + rules % "{ 53, 1100-1200 }")
    patient.fine()
    host.run("nft", "flush", "ruleset")
    host.ip("route del default via 203.0.113.254 dev eth0", "route del default via 2001:db8:6::fe dev eth0")
    patient.finds("mend", "no default route", "ip route")
    host.ip("route add default via 203.0.113.254 dev eth0")
    patient.fine()
    host.ip("link set eth0 mtu 1200")
    patient.apply(patient.finds("mend", "eth0 has an MTU of 1200", "ip link set eth0 mtu 1500"))


@case(own=True)
def addresses(t):
    patient = Patient(t)
    host = patient.host
    # The delegated prefix, as netifd lays it; the LAN takes all of it.
    host.ip("route add unreachable 2001:db8:100::/60 dev lo", "addr add 2001:db8:100::1/60 dev lan0 nodad")
    patient.finds("note", "the LAN takes all of 2001:db8:100::/60", "give the LAN a /64")
    host.ip("addr del 2001:db8:100::1/60 dev lan0", "addr add 2001:db8:100::1/64 dev lan0 nodad")
    patient.fine()
    host.ip("route del unreachable 2001:db8:100::/60 dev lo", "route add unreachable 2001:db8:100::/64 dev lo")
    patient.finds("note", "one /64, 2001:db8:100::/64, and the LAN has it", "ndp-proxy")
    host.ip("route del unreachable 2001:db8:100::/64 dev lo", "addr del 2001:db8:100::1/64 dev lan0")
    patient.fine()
    endpoint = patient.state / "endpoint"
    for name, text in (("203.0.113.99:1194", "203.0.113.99 leads to 203.0.113.99, which is not this router's"),
                       ("[2001:db8:6::99]", "2001:db8:6::99 leads to"), ("no-such-name.invalid", "no-such-name.invalid does not resolve")):
        endpoint.write_text(name + "\n")
        patient.finds("mend", text, "A and AAAA records")
    endpoint.write_text("[2001:db8:6::1]:1194\n")
    patient.fine()
    endpoint.unlink()
    patient.finds("mend", "profiles do not say where this server is", "sixgate up --endpoint NAME")
    endpoint.write_text("203.0.113.1\n")
    patient.fine()
    # A provider that shares IPv4 addresses: with IPv6 worth knowing, without it the end.
    host.ip("addr add 100.64.0.2/10 dev eth0", "addr del 203.0.113.1/24 dev eth0", "route replace default via 100.64.0.1 dev eth0")
    endpoint.write_text("2001:db8:6::1\n")
    patient.finds("note", "(CGNAT, 100.64.0.2)", "AAAA record")
    host.ip("route del default via 2001:db8:6::fe dev eth0")
    patient.finds("mend", "(CGNAT, 100.64.0.2)", "ask the provider for IPv6")
    host.ip("addr add 192.168.2.9/24 dev eth0", "addr del 100.64.0.2/10 dev eth0", "route replace default via 192.168.2.1 dev eth0")
    patient.finds("mend", "another router is in front of this one (192.168.2.9 is private)", "forward UDP port 1194 to 192.168.2.9")


@case(own=True)
def machine(t):
    patient = Patient(t)
    host, state = patient.host, patient.state
    patient.fine()
    patient.finds("mend", "no tunnel device can be made: No such file", "modprobe tun", before="mount -t tmpfs none /dev/net")
    read_only = f"mount --bind {state} {state} && mount -o remount,bind,ro {state}"
    patient.finds("mend", f"{state} cannot be written: Read-only", f"mount -o remount,rw {state}", before=read_only)
    # The socket of the running server is found by the folder's name, whatever is mounted there.
    full = f"cp -a {state} {t.dir}/copy && mount -t tmpfs -o size=128k none {state} && cp -a {t.dir}/copy/. {state} && " \
           f"head -c 100000 /dev/zero >{state}/filler; true"
    patient.finds("mend", f"{state} is full", "df -h", before=full)
    late = state / "issued"
    host.run("touch", "-d", "+3 days", late)
    patient.finds("mend", "the clock is not set", "timedatectl set-ntp true")
    host.run("touch", late)
    patient.fine()
    # The port: nobody's, somebody else's, ours.
    patient.server.stop()
    patient.finds("mend", "the server is not running", "sixgate up")
    hold = "import socket,time; s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); s.bind(('::',1194)); print('bound',flush=True); time.sleep(60)"
    other = t.process(host.inside("python3", "-c", hold), "other")
    other.expect("(?m)^bound")
    patient.finds("mend", "UDP port 1194 belongs to python3", "systemctl disable --now python3")
    other.kill()
    patient.server.start()
    patient.fine()


@case(own=True)
def configuration(t):
    patient = Patient(t)
    text = (patient.state / "server.conf").read_text()
    broken = t.write("broken.conf", text + "frobnicate\n")
    patient.finds("mend", "frobnicate", "sixgate up", "--config", broken)
    authority = t.shared.authority
    stamp = [time.strftime("%y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400)) for days in (-20, 10.5, -1)]
    for name, end, weight, words in (("soon", stamp[1], "note", "the certificate of the server ends in 10 days"),
                                     ("late", stamp[2], "mend", "the certificate of the server has expired")):
        key, cert = authority.issue(name, usage="server", dates=(stamp[0], end))
        lines = [line for line in text.splitlines() if not line.startswith(("ca ", "cert ", "key ", "sixgate-state"))]
        config = t.write(f"{name}.conf", "\n".join([*lines, f"ca {authority.cert}", f"cert {cert}", f"key {key}"]) + "\n")
        patient.finds(weight, words, "a new one from whoever made it", "--config", config)
    patient.fine("--config", patient.state / "server.conf")
