"""The packages in the hands of the programs that install them, opkg and apk: installation, upgrade with
an edited configuration, removal. tests/openwrt/run has these cases where it is told where they are: no Debian
release has either, and building them is nothing for a test.
"""

import os
import pathlib
import subprocess

ARCHITECTURE = "mips_24kc"
FILES = {"etc/init.d/sixgate": 0o755, "etc/uci-defaults/sixgate": 0o755, "usr/sbin/sixgate": 0o755,
         "lib/netifd/proto/sixgate.sh": 0o755, "lib/upgrade/keep.d/sixgate": 0o644, "etc/config/sixgate": 0o600}
CONFIG = "etc/config/sixgate"
EDITED = "config server 'server'\n\toption endpoint 'mine.example.org'\n"
# What a package of ours depends on, as a router has it.
NEEDED = ("libc", "kmod-tun")


class Root:
    """A root folder with one of the two programs."""

    def __init__(self, packages, name: str, program: pathlib.Path):
        self.packages, self.program = packages, program.resolve()
        self.path = packages.folder / name
        self.path.mkdir()

    def releases(self, suffix: str) -> list[pathlib.Path]:
        """The package as it is, and as the next release."""
        triple = next(triple for triple in self.packages.triples if triple.startswith("mips-"))
        path = f"{self.program.parent}:{os.environ['PATH']}"
        for number in (1, 2):
            self.packages.pack(triple, f"release{number}", PATH=path, MAKEFLAGS=f"PKG_RELEASE={number}")
        folders = [self.packages.folder / f"release{number}" / triple for number in (1, 2)]
        return [next(folder.glob(f"*{ARCHITECTURE}.{suffix}")) for folder in folders]

    def run(self, *arguments, status: int | None = 0) -> str:
        done = subprocess.run([self.program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert (done.returncode == 0) == (status == 0), f"{arguments}: status {done.returncode}\n{done.stdout}"
        return done.stdout

    def installed(self) -> dict[str, int]:
        return {name: (self.path / name).stat().st_mode & 0o777 for name in FILES if (self.path / name).exists()}

    def edit(self) -> None:
        (self.path / CONFIG).write_text(EDITED)

    def kept(self, beside: str) -> None:
        """The edited configuration is there, and the new one beside it."""
        assert (self.path / CONFIG).read_text() == EDITED
        assert "option endpoint ''" in (self.path / f"{CONFIG}{beside}").read_text()


def test_opkg_installs_upgrades_and_removes(packages):
    root = Root(packages, "opkg", packages.opkg)
    first, second = root.releases("ipk")
    info = root.path / "usr/lib/opkg"
    for folder in (info, root.path / "var/lock", root.path / "tmp"):
        folder.mkdir(parents=True)
    status = [f"Package: {name}\nVersion: 1\nStatus: install ok installed\nArchitecture: all\n" for name in NEEDED]
    (info / "status").write_text("\n".join(status) + "\n")
    conf = packages.folder / "opkg.conf"
    conf.write_text(f"dest root /\nlists_dir ext /var/opkg-lists\noption lock_file /var/lock/opkg.lock\narch all 1\narch {ARCHITECTURE} 10\n")
    opkg = ("-f", conf, "-o", root.path)
    other = next(path for path in first.parent.glob("*.ipk") if ARCHITECTURE not in path.name)
    root.run(*opkg, "install", other, status=None)
    assert not root.installed(), "a package for another machine was installed"
    root.run(*opkg, "install", first)
    assert root.installed() == FILES
    assert "0.1.0-r1" in root.run(*opkg, "list-installed", "sixgate")
    scripts = {path.name for path in (info / "info").glob("sixgate.*")}
    assert {"sixgate.postinst", "sixgate.prerm", "sixgate.prerm-pkg", "sixgate.conffiles", "sixgate.list"} <= scripts, scripts
    root.edit()
    root.run(*opkg, "install", second)
    assert "0.1.0-r2" in root.run(*opkg, "list-installed", "sixgate")
    assert root.installed().keys() == FILES.keys()
    root.kept("-opkg")
    root.run(*opkg, "remove", "sixgate")
    assert root.installed().keys() == {CONFIG}, root.installed()
    assert (root.path / CONFIG).read_text() == EDITED


def test_apk_installs_upgrades_and_removes(packages):
    root = Root(packages, "apk", packages.apk)
    first, second = root.releases("apk")
    empty = packages.folder / "empty"
    empty.mkdir()
    needed = []
    for name in NEEDED:
        needed.append(packages.folder / f"{name}.apk")
        root.run("mkpkg", "--info", f"name:{name}", "--info", "version:1", "--info", "arch:noarch",
                 "--files", empty, "--output", needed[-1])
    here = ("--root", root.path, "--arch", ARCHITECTURE, "--allow-untrusted", "--no-network")
    apk = (*here, "--no-scripts")
    root.run("add", "--initdb", *apk, *needed)
    other = next(path for path in first.parent.glob("*.apk") if ARCHITECTURE not in path.name)
    root.run("add", *apk, other, status=None)
    assert not root.installed(), "a package for another machine was installed"
    root.run("add", *apk, first)
    assert root.installed() == FILES
    lists = root.path / "lib/apk/packages"
    assert (lists / "sixgate.rusers").read_text() == "sixgate:sixgate\n"
    assert (lists / "sixgate.conffiles").read_text().split() == ["/etc/config/sixgate", "/etc/sixgate/"]
    assert {f"/{name}" for name in FILES} <= set((lists / "sixgate.list").read_text().split())
    assert "0.1.0-r1" in root.run("list", *here, "--installed", "sixgate")
    root.edit()
    root.run("add", *apk, second)
    assert "0.1.0-r2" in root.run("list", *here, "--installed", "sixgate")
    assert root.installed().keys() == FILES.keys()
    root.kept(".apk-new")
    root.run("del", *apk, "sixgate")
    assert root.installed().keys() == {CONFIG}, root.installed()
