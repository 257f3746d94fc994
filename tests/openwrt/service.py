"""The init script from the package, run by busybox's ash against stand_ins.sh in an unpacked root."""

import pathlib
import re
import shutil
import stat
import subprocess

HERE = pathlib.Path(__file__).resolve().parent

# What the script may call besides the shell: all of it is in OpenWrt's busybox.
APPLETS = "cat cmp cut echo grep mkdir mv rm rmdir sed tr true".split()

SERVER = """
config server 'server'
	option endpoint 'home.example.org'
	option network 'auto'
	option network6 'auto'
	list access 'router'
	list access 'lan'
	list reachable_from 'lan'
"""


# The same with networks that are known beforehand.
NETWORKS = SERVER.replace("network 'auto'", "network '10.8.0.0/24'").replace("network6 'auto'", "network6 'fd00:1:2:3::/64'")


class Router:
    """A root folder with the package, a sixgate for this machine, and calls of its init script."""

    def __init__(self, packages, name: str, config: str | None = None, sixgate: str | None = None):
        self.root = packages.unpack(name)
        self.bin = self.root / "applets"
        self.bin.mkdir()
        for applet in APPLETS:
            (self.bin / applet).symlink_to(shutil.which("busybox"))
        (self.root / "lib/functions").mkdir(parents=True)
        network = "network_get_subnet() { [ \"$2\" = lan ] && eval \"$1=192.168.1.1/24\"; }\n"
        (self.root / "lib/functions/network.sh").write_text(network)
        if config is not None:
            self.configure(config)
        self.program = self.root / "usr/sbin/sixgate"
        self.program.unlink()
        if sixgate:
            self.program.write_text(f"#!{shutil.which('busybox')} ash\n{sixgate}")
            self.program.chmod(0o755)
        else:
            shutil.copy(packages.sixgate, self.program)

    def configure(self, text: str, package: str = "sixgate") -> None:
        (self.root / "etc/config" / package).write_text(text)

    def call(self, action: str, script: str = "etc/init.d/sixgate", **environment: str) -> "Call":
        trace = self.root / "trace"
        trace.write_text("")
        given = {"IPKG_INSTROOT": str(self.root), "PATH": str(self.bin), "TRACE": str(trace),
                 "ULA": "fd12:3456:789a::/48", **environment}
        run = subprocess.run(
            ["/bin/busybox", "ash", HERE / "stand_ins.sh", self.root / script, action],
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        assert "not found" not in run.stderr and "stand-in:" not in run.stderr, run.stderr
        return Call(run.returncode, run.stdout, run.stderr, trace.read_text().splitlines())

    def start(self) -> "Call":
        call = self.call("start")
        assert call.status == 0, call
        return call

    def refused(self, word: str) -> None:
        call = self.call("start")
        assert call.status != 0 and word in call.errors, call
        logged = [line for line in call.trace if line.startswith("logger [daemon.err]")]
        assert any(word in line for line in logged), call.trace
        assert not any("procd_open_instance" in line for line in call.trace), call.trace

    @property
    def conf(self) -> str:
        text = (self.root / "var/etc/sixgate/server.conf").read_text()
        return text.replace(str(self.root), "")

    def ccd(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in (self.root / "var/etc/sixgate/ccd").glob("*")}

    def lines(self) -> dict[str, list[str]]:
        """The clients' files without comments."""
        return {name: [line for line in text.splitlines() if not line.startswith("#")] for name, text in self.ccd().items()}


class Call:
    """What a call of the script did."""

    def __init__(self, status: int, output: str, errors: str, trace: list[str]):
        self.status, self.output, self.errors, self.trace = status, output, errors, trace

    def __repr__(self) -> str:
        return "\n".join([f"status {self.status}", self.output, self.errors, *self.trace])

    def rules(self) -> list[dict[str, str]]:
        """The firewall rules that the instance carries, as firewall4 reads them."""
        start, end = self.trace.index("json_add_array [firewall]"), self.trace.index("json_close_array")
        rules = []
        for line in self.trace[start + 1 : end]:
            if line == "json_add_object []":
                rules.append({})
            elif found := re.fullmatch(r"json_add_string \[(.*)\] \[(.*)\]", line):
                rules[-1][found[1]] = found[2]
        return rules


# A program that says yes to everything; `client list` knows one client.
WILLING = """
case "$1 $2" in
'client list') printf 'NAME  STATE\\nold  revoked\\n' ;;
init*) mkdir -p "$3" && printf 'server 10.8.0.0 255.255.255.0\\nserver-ipv6 auto fd00:1:2:3::/64\\n' >"$3/server.conf" ;;
esac
"""


def test_the_shipped_configuration_lacks_only_the_endpoint(packages):
    router = Router(packages, "shipped")
    router.refused("uci set sixgate.server.endpoint=")
    text = (router.root / "etc/config/sixgate").read_text()
    assert text.count("option endpoint ''") == 1
    router.configure(text.replace("option endpoint ''", "option endpoint 'home.example.org'"))
    call = router.start()
    check = subprocess.run(
        [router.program, "check", router.root / "var/etc/sixgate/server.conf"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Whether this machine forwards packets is not the configuration's doing.
    warnings = [line for line in check.stderr.splitlines() if "forwarding is off" not in line]
    assert check.returncode == 0 and not warnings, check
    profile = (router.root / "etc/sixgate/clients/client1.ovpn").read_text()
    assert re.search(r"^remote home\.example\.org 1194\b", profile, re.M), profile
    assert "procd_set_param [command] [{0}/usr/sbin/sixgate] [run] [{0}/var/etc/sixgate/server.conf]".format(
        router.root
    ) in call.trace


def test_the_configuration_says_what_uci_says(packages):
    router = Router(packages, "says", SERVER + "\toption port '1195'\n\toption client_to_client '1'\n"
        "\tlist push_route '192.168.7.9/24'\n\tlist push_route 'fd00:9::/48'\n\tlist dns 'router'\n"
        "\tlist dns '9.9.9.9'\n\tlist directive 'reneg-sec 0'\n\toption redirect_gateway '1'\n", WILLING)
    router.start()
    lines = router.conf.splitlines()
    for line in (
        'sixgate-state "/etc/sixgate"',
        'key "/etc/sixgate/server.pem"',
        "port 1195",
        "proto udp",
        "server 10.8.0.0 255.255.255.0",
        "server-ipv6 auto fd00:1:2:3::/64",
        "client-to-client",
        'push "redirect-gateway def1 ipv6"',
        'push "route 192.168.1.0 255.255.255.0"',
        'push "route-ipv6 fd12:3456:789a::/48"',
        'push "route 192.168.7.0 255.255.255.0"',
        'push "route-ipv6 fd00:9::/48"',
        'push "dhcp-option DNS 10.8.0.1"',
        'push "dhcp-option DNS fd00:1:2:3::1"',
        'push "dhcp-option DNS 9.9.9.9"',
        "reneg-sec 0",
    ):
        assert line in lines, line
    assert not any(line.startswith("client-config-dir") for line in lines)


def test_networks_are_given_or_left_out(packages):
    given = SERVER.replace("network 'auto'", "network '10.9.3.200/26'").replace("network6 'auto'", "network6 'fd00:7::/112'")
    router = Router(packages, "given", given, WILLING)
    router.start()
    assert "server 10.9.3.192 255.255.255.192\nserver-ipv6 fd00:7::/112\n" in router.conf
    router.configure(SERVER.replace("network 'auto'", "network ''"))
    router.start()
    assert "\nserver 1" not in router.conf and "server-ipv6 auto fd00:1:2:3::/64" in router.conf


def test_the_endpoint_comes_from_dynamic_dns(packages):
    called = WILLING + '[ "$1" != init ] || echo "$5" >"${0%/*}/endpoint"\n'
    router = Router(packages, "ddns", SERVER.replace("home.example.org", ""), called)
    router.configure(
        "config service 'off'\n\toption enabled '0'\n\toption lookup_host 'yourhost.example.com'\n"
        "config service 'on'\n\toption enabled '1'\n\toption lookup_host 'me.example.net'\n",
        "ddns",
    )
    for option, expected in (
        ("", "me.example.net:1194"),
        ("\toption endpoint 'a.example:443'\n", "a.example:443"),
        ("\toption endpoint '2001:db8::1'\n\toption port '7'\n", "[2001:db8::1]:7"),
        ("\toption endpoint '[2001:db8::1]:99'\n", "[2001:db8::1]:99"),
    ):
        router.configure(SERVER.replace("\toption endpoint 'home.example.org'\n", option))
        router.start()
        assert (router.root / "usr/sbin/endpoint").read_text() == expected + "\n"


def test_a_profile_leads_to_the_name_of_dynamic_dns(packages):
    router = Router(packages, "ddns-profile", NETWORKS.replace("home.example.org", ""))
    for name in ("me.example.net", "moved.example.net"):
        router.configure(f"config service 'on'\n\toption enabled '1'\n\toption lookup_host '{name}'\n", "ddns")
        router.start()
        client = name.partition(".")[0]
        command = [router.program, "client", "add", client, "--dir", router.root / "etc/sixgate", "--out", "-"]
        profile = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        # By both families, and nowhere else.
        remotes = [line.split()[1:3] for line in profile.splitlines() if line.startswith("remote ")]
        assert remotes and all(remote == [name, "1194"] for remote in remotes), profile
        for block in ("ca", "cert", "key", "tls-crypt-v2"):
            assert f"<{block}>\n" in profile and f"</{block}>\n" in profile, block


def test_the_firewall_is_opened_by_procds_data(packages):
    router = Router(packages, "firewall", SERVER, WILLING)
    call = router.start()
    to_all = {"type": "rule", "target": "ACCEPT", "proto": "all", "device": "sixgate0"}
    assert call.rules() == [
        {"type": "rule", "target": "ACCEPT", "src": "*", "dest_port": "1194", "proto": "udp"},
        {**to_all, "src": "*", "direction": "in"},
        {**to_all, "src": "*", "dest": "lan", "direction": "in"},
        {**to_all, "src": "lan", "dest": "*", "direction": "out"},
    ]
    changed = "procd_set_config_changed [firewall]"
    assert changed in call.trace
    # It is slow to load: not again for the same rules.
    assert changed not in router.call("reload").trace
    router.configure(SERVER + "\tlist access 'wan'\n")
    assert changed in router.call("reload").trace
    assert changed in router.call("stop").trace


def test_clients_get_certificates_and_what_is_their_own(packages):
    router = Router(packages, "clients", NETWORKS + """
config client
	option name 'phone'
config client
	option name 'old'
	option enabled '0'
config client
	option name 'site'
	option ipv4 '10.8.0.20'
	option ipv6 '::20'
	list network '192.168.50.0/24'
	list network 'fd00:50::/64'
""")
    call = router.start()
    assert {"phone.ovpn", "site.ovpn"} <= {path.name for path in (router.root / "etc/sixgate/clients").iterdir()}
    assert router.lines() == {
        "old": ["disable"],
        "site": ["ifconfig-push 10.8.0.20 255.255.255.0", "ifconfig-ipv6-push ::20/64",
                 "iroute 192.168.50.0 255.255.255.0", "route 192.168.50.0 255.255.255.0",
                 "iroute-ipv6 fd00:50::/64", "route-ipv6 fd00:50::/64"],
    }
    assert router.conf.endswith('\nclient-config-dir "/var/etc/sixgate/ccd"\n')
    assert "procd_set_param [reload_signal] [HUP]" in call.trace
    files = [line for line in call.trace if "_param [file]" in line]
    assert [line.rsplit("/", 1)[1] for line in files] == ["server.conf]", "old]", "site]"]
    # What `sixgate client set` has said holds, too; a section has the last word on what it names.
    (router.root / "etc/sixgate/ccd").mkdir()
    (router.root / "etc/sixgate/ccd/phone").write_text("ifconfig-push 10.8.0.9 255.255.255.0\nifconfig-ipv6-push ::9\n")
    router.configure(NETWORKS + "config client\n\toption name 'phone'\n\toption ipv4 '10.8.0.21'\n")
    router.start()
    assert router.lines() == {"phone": ["ifconfig-ipv6-push ::9", "ifconfig-push 10.8.0.21 255.255.255.0"]}
    shutil.rmtree(router.root / "etc/sixgate/ccd")
    router.configure(NETWORKS)
    router.start()
    assert not router.ccd() and "client-config-dir" not in router.conf


def test_addresses_of_every_shape(packages):
    router = Router(packages, "shapes", NETWORKS)
    for network, host, address in (
        ("auto", "::20", "::20/64"),
        ("fd00:1:2:3::/64", "::20", "::20/64"),
        ("fd00:1:2:3::/64", "20", "::20/64"),
        ("fd00:1:2:3::/64", "::1:2:3:4", "::1:2:3:4/64"),
        ("fd00:1:2:3:4:5:6::/112", "::ab", "::ab/112"),
        ("fd00::/64", "::a:b", "::a:b/64"),
        ("fd00:1:2:3::/64", "::1:2:3:4:5", None),
        ("fd00:1:2:3::/64", "::", None),
        ("fd00:1:2:3::/64", "1::20", None),
        ("fd00:1:2:3::/64", "::2 0", None),
    ):
        given = SERVER.replace("network6 'auto'", f"network6 '{network}'")
        router.configure(f"{given}\nconfig client\n\toption name 'a'\n\toption ipv6 '{host}'\n")
        if address:
            router.start()
            assert router.lines() == {"a": [f"ifconfig-ipv6-push {address}"]}
        else:
            router.refused("client a: ip6-host=")


def test_mistakes_are_refused_and_leave_the_files_alone(packages):
    router = Router(packages, "mistakes", SERVER)
    router.start()
    before = router.conf
    for change, word in (
        ("\toption port '0'\n", "option port"),
        ("\toption port '65536'\n", "option port"),
        ("\toption port '1194 '\n", "option port"),
        ("\toption proto 'tcp'\n", "option proto"),
        ("\toption verb '12'\n", "option verb"),
        ("\toption network '10.8.0.0'\n\toption network6 'fd00::'\n", "option network6"),
        ("\toption network '10.8.0/24'\n", "option network"),
        ("\toption network '10.8.0.256/24'\n", "option network"),
        ("\toption network '10.8.0.08/24'\n", "option network"),
        ("\toption network '10.8.0.0/33'\n", "option network"),
        ("\toption network ''\n\toption network6 ''\n", "both empty"),
        ("\tlist push_route 'lan'\n", "list push_route"),
        ("\tlist dns 'dns.example'\n", "list dns"),
        ("config client\n\toption name '../x'\n", "option name"),
        ("config client\n", "option name"),
        ("config client\n\toption name 'a'\n\toption ipv4 '20'\n", "client a: ipv4=20"),
        ("config client\n\toption name 'a'\n\tlist network 'x'\n", "client a: networks=x"),
        ("config client\n\toption name 'a'\n\toption ipv6 '::7'\nconfig client\n\toption name 'b'\n\toption ipv6 '::7'\n",
         "belongs to the client a already"),
    ):
        router.configure(SERVER + change)
        router.refused(word)
        assert router.conf == before
        assert sorted(p.name for p in (router.root / "var/etc/sixgate").iterdir()) == ["firewall", "server.conf"]
    router.configure(SERVER)
    router.start()


def test_what_the_program_refuses_is_logged_and_not_started(packages):
    router = Router(packages, "no", SERVER, WILLING + '[ "$1" != check ] || { echo "server.conf:9: no such thing" >&2; exit 1; }\n')
    router.refused("server.conf:9: no such thing")
    router = Router(packages, "no-state", SERVER, '[ "$1" != init ] || { echo "read-only file system" >&2; exit 1; }\n')
    router.refused("read-only file system")


def test_a_server_that_is_off_is_not_started(packages):
    router = Router(packages, "off", SERVER + "\toption enabled '0'\n", WILLING)
    call = router.start()
    assert not any("procd_open_instance" in line for line in call.trace), call
    assert "procd_add_reload_trigger [sixgate] [ddns]" in call.trace
    assert not (router.root / "etc/sixgate").exists()


def test_flash_is_written_only_when_something_changes(packages):
    router = Router(packages, "flash", SERVER + "\nconfig client\n\toption name 'phone'\n")
    router.start()
    flash, ram = router.root / "etc", router.root / "var"

    def state(folder: pathlib.Path):
        return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(folder.rglob("*"))}

    before, files = state(flash), state(ram)
    assert (flash / "sixgate/clients/phone.ovpn").exists()
    router.call("reload")
    assert state(flash) == before, "a reload without a change wrote to flash"
    # procd compares contents; an unchanged file is not even replaced.
    assert {p: s for p, s in state(ram).items() if p.is_file()} == {p: s for p, s in files.items() if p.is_file()}
    for path in (flash / "sixgate").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path}: {mode:o}"
    assert stat.S_IMODE((flash / "sixgate").stat().st_mode) == 0o700
    assert stat.S_IMODE((ram / "etc/sixgate/server.conf").stat().st_mode) == 0o600


def test_status_is_the_programs(packages):
    router = Router(packages, "status", SERVER, '[ "$1" = status ] && echo "phone 2001:db8::7"\n')
    call = router.call("status")
    assert (call.status, call.output) == (0, "phone 2001:db8::7\n"), call
