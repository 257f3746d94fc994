"""The interface that gives the tunnel a part of the line's prefix: made at the first installation, and
from then on its owner's. The package's scripts run against stand_ins.sh."""

from service import Router

DEFAULTS, PRERM = "etc/uci-defaults/sixgate", "prerm-pkg"

# What a router of today, and one before 21.02, has from its first boot.
NEW = """config interface 'loopback'
	option device 'lo'
	option proto 'static'
config interface 'lan'
	option device 'br-lan'
	option ip6assign '60'
"""
OLD = NEW.replace("device", "ifname")

RELOAD = "ubus [call] [network] [reload]"


def section(name: str, key: str = "device", more: str = "") -> str:
    return f"config interface '{name}'\n\toption proto 'none'\n\toption {key} 'sixgate0'\n\toption ip6assign '64'\n{more}"


class Package(Router):
    """A router on which the package is installed, upgraded and removed."""

    def __init__(self, packages, name: str, network: str):
        super().__init__(packages, name, sixgate="")
        (self.root / PRERM).write_text(packages.all()[0].text("prerm-pkg"))
        self.network = network

    @property
    def network(self) -> str:
        return (self.root / "etc/config/network").read_text()

    @network.setter
    def network(self, text: str) -> None:
        self.configure(text, "network")

    def does(self, script: str, upgrade: bool, network: str, changes: bool) -> None:
        before = (self.root / "etc/config/network").stat()
        call = self.call("source", script, PKG_UPGRADE="1" if upgrade else "0")
        assert call.status == 0 and not call.output and not call.errors, call
        assert self.network == network, self.network
        assert call.trace == (["uci commit network", RELOAD] if changes else []), call
        after = (self.root / "etc/config/network").stat()
        assert changes or (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)

    def install(self, network: str, changes: bool = True) -> None:
        self.does(DEFAULTS, False, network, changes)

    def upgrade(self) -> None:
        for script in (PRERM, DEFAULTS):
            self.does(script, True, self.network, False)

    def remove(self, network: str, changes: bool = True) -> None:
        self.does(PRERM, False, network, changes)


def test_the_package_brings_an_interface_and_takes_it_away(packages):
    for name, network, key in (("new", NEW, "device"), ("old", OLD, "ifname")):
        router = Package(packages, f"network-{name}", network)
        router.install(network + section("sixgate", key))
        router.upgrade()
        router.install(router.network, changes=False)
        router.remove(network)
        router.remove(network, changes=False)


def test_an_interface_that_is_there_is_left_alone(packages):
    router = Package(packages, "network-there", NEW)
    for network in (
        NEW + section("vpn"),
        OLD + section("vpn", "ifname"),
        OLD + section("vpn", "ifname").replace("'sixgate0'", "'eth2 sixgate0'"),
        OLD + section("vpn", "ifname").replace("'sixgate0'", "'sixgate0 eth2'"),
        NEW + "config interface 'sixgate'\n\toption proto 'dhcp'\n\toption device 'eth7'\n",
    ):
        router.network = network
        router.install(network, changes=False)
        router.upgrade()
        router.remove(network, changes=False)
    # Only looks like it.
    for name in ("sixgate01", "xsixgate0"):
        router.network = other = NEW + section("vpn").replace("sixgate0", name)
        router.install(other + section("sixgate"))


def test_an_interface_that_was_changed_or_deleted_stays_that_way(packages):
    router = Package(packages, "network-changed", NEW)
    for changed in (
        NEW + section("sixgate", more="\toption ip6hint 'f'\n"),
        NEW + section("sixgate").replace("64", "62"),
        NEW + section("sixgate").replace("'none'", "'static'"),
    ):
        router.network = changed
        router.upgrade()
        router.remove(changed, changes=False)
    router.network = NEW
    router.upgrade()
