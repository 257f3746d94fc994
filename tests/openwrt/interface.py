"""The protocol `sixgate` of netifd: an interface that is a tunnel to a server, whose delegated prefix becomes netifd's. The
package's script runs against netifd_stand_ins.sh, and once as what it is: the `up` of a client."""

import os
import pathlib
import shutil
import subprocess

from service import Call, Router

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = "lib/netifd/proto/sixgate.sh"


class Netifd(Router):
    """A router with the package and netifd's functions."""

    def __init__(self, packages, name: str):
        super().__init__(packages, name)
        (self.root / "lib/functions.sh").write_text("")
        shutil.copy(HERE / "netifd_stand_ins.sh", self.root / "lib/netifd/netifd-proto.sh")
        self.profile = self.root / "etc/sixgate/office.ovpn"

    def does(self, *arguments: str, **environment: str) -> list[str]:
        """Calls the script as netifd or the client would; what it did, without the root's path."""
        trace = self.root / "trace"
        trace.write_text("")
        run = subprocess.run(
            ["/bin/busybox", "ash", self.root / SCRIPT, *arguments],
            env={"IPKG_INSTROOT": str(self.root), "PATH": str(self.bin), "TRACE": str(trace), **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
        assert not run.stdout and not run.stderr, Call(run.returncode, run.stdout, run.stderr, [])
        return trace.read_text().replace(str(self.root), "").splitlines()

    def data(self, prefix: int) -> str:
        return f"data_config_file={self.profile} data_prefix={prefix}"


def test_the_interface_is_a_client(packages):
    router = Netifd(packages, "netifd-client")
    assert router.does("", "dump") == [
        "proto_config_add_string [config_file]", "proto_config_add_boolean [prefix]", "protocol [sixgate] [1] [1]"]
    # Without a file there is nothing to be tried again.
    assert router.does("sixgate", "setup", "office", router.data(0)) == [
        "proto_notify_error [office] [NO_CONFIG_FILE]", "proto_block_restart [office]"]
    router.profile.parent.mkdir(exist_ok=True)
    router.profile.write_text("client\n")
    for prefix, more in ((0, ""), (1, "[--delegate-ipv6-dev] ")):
        assert router.does("sixgate", "setup", "office", router.data(prefix)) == [
            "proto_run_command [office] [/usr/sbin/sixgate] [--config] [/etc/sixgate/office.ovpn] [--dev-type] [tun] "
            f"[--dev] [six-office] {more}[--syslog] [sixgate-office] [--script-security] [2] "
            "[--up] [/lib/netifd/proto/sixgate.sh report office]"]
    assert router.does("sixgate", "teardown", "office", router.data(0)) == ["proto_kill_command [office]"]
    # Of another protocol.
    assert router.does("dhcp", "setup", "office", router.data(0)) == []


def test_netifd_gets_addresses_prefix_and_dns(packages):
    router = Netifd(packages, "netifd-report")
    up = dict(ifconfig_local="10.8.0.2", ifconfig_netmask="255.255.255.0", ifconfig_ipv6_local="2001:db8:a::77",
              ifconfig_ipv6_netbits="64", OPENVPN_ifconfig_ipv6_stable="fd00:6::77/64", OPENVPN_delegated_ipv6="2001:db8:a:10::/60",
              foreign_option_1="dhcp-option DNS 10.8.0.1", foreign_option_2="dhcp-option WINS 10.8.0.1",
              foreign_option_3="dhcp-option DNS6 fd00:6::1", foreign_option_4="dhcp-option DOMAIN-SEARCH example.org")
    call = ("report", "office", "six-office", "1500", "0", "10.8.0.2", "255.255.255.0", "init")
    assert router.does(*call, **up) == [
        "proto_init_update [six-office] [1] [1]",
        "proto_add_ipv4_address [10.8.0.2] [255.255.255.0] [] []",
        "proto_add_ipv6_address [2001:db8:a::77] [64]",
        "proto_add_ipv6_address [fd00:6::77] [64]",
        "proto_add_ipv6_prefix [2001:db8:a:10::/60]",
        "proto_add_ipv6_route [::] [0] [] [] [] [2001:db8:a:10::/60]",
        "proto_add_dns_server [10.8.0.1]",
        "proto_add_dns_server [fd00:6::1]",
        "proto_add_dns_search [example.org]",
        "proto_send_update [office]",
    ]
    # The line is gone: the private prefix leads nowhere else.
    trace = router.does(*call, **{**up, "OPENVPN_delegated_ipv6": "fd9a:0:0:10::/60"})
    assert "proto_add_ipv6_prefix [fd9a:0:0:10::/60]" in trace and not any("route" in line for line in trace), trace
    # Point to point, and nothing else.
    assert router.does(*call, ifconfig_local="10.8.0.6", ifconfig_remote="10.8.0.5") == [
        "proto_init_update [six-office] [1] [1]", "proto_add_ipv4_address [10.8.0.6] [32] [] [10.8.0.5]",
        "proto_send_update [office]"]


def test_the_program_takes_what_it_is_started_with(packages):
    """The very arguments, as far as a program without privileges gets with them."""
    router = Netifd(packages, "netifd-arguments")
    router.profile.parent.mkdir(exist_ok=True)
    router.profile.write_text("client\nremote home.example.org\nca nothing\n")
    [line] = router.does("sixgate", "setup", "office", router.data(1))
    arguments = line.removeprefix("proto_run_command [office] [").removesuffix("]").split("] [")
    arguments = [argument.replace("/etc/", f"{router.root}/etc/").replace("/lib/", f"{router.root}/lib/") for argument in arguments]
    run = subprocess.run([router.root / "usr/sbin/sixgate", *arguments[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, timeout=60, env={"PATH": os.environ["PATH"]})
    # The file that is missing, and nothing about arguments.
    problems = [line for line in run.stdout.splitlines() if "warning" not in line]
    assert run.returncode != 0 and any("nothing" in line for line in problems), run.stdout
    assert not any(word in run.stdout for word in ("delegate-ipv6-dev", "`up`", "script-security", "syslog", "dev-type")), run.stdout
