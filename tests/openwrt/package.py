"""The packages: made by openwrt/pack for a target that is built, looked into and compared with what
OpenWrt's SDK makes (scripts/ipkg-build, include/package-pack.mk)."""

import gzip
import io
import os
import pathlib
import re
import shutil
import subprocess
import tarfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
EPOCH = 1750000000
# What a package with everything should have on a router with 8 MB of flash. The budgets are what there is.
GOAL = 450_000

# The fields of CONTROL in package-pack.mk that a package like this one has, in its order.
FIELDS = """Package Version Depends Source SourceName License LicenseFiles Section Require-User SourceDateEpoch URL
Maintainer Architecture Installed-Size Description""".split()


def rows() -> list[list[str]]:
    """cross/targets, which says what its columns are."""
    lines = (REPOSITORY / "cross/targets").read_text().splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


def row_of(triple: str) -> list[str]:
    return next(row for row in rows() if row[0] == triple)


def targets() -> dict[str, list[str]]:
    """The triples of cross/targets with their OpenWrt architectures."""
    return {row[0]: row[-1].split(",") for row in rows()}


def built(triple: str) -> bool:
    return any((REPOSITORY / f"target/cross/{triple}").glob("*/sixgate"))


class Archive:
    """An .ipk, open."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        raw = path.read_bytes()
        assert raw[:2] == b"\x1f\x8b", "not gzip"
        assert raw[3] == 0 and raw[4:8] == bytes(4), "gzip's header has a name or a time"
        self.outer = tarfile.open(fileobj=io.BytesIO(gzip.decompress(raw)))
        self.data_tar = gzip.decompress(self.member(self.outer, "./data.tar.gz"))
        self.data = tarfile.open(fileobj=io.BytesIO(self.data_tar))
        control = gzip.decompress(self.member(self.outer, "./control.tar.gz"))
        self.control = tarfile.open(fileobj=io.BytesIO(control))

    @staticmethod
    def member(tar: tarfile.TarFile, name: str) -> bytes:
        return tar.extractfile(name).read()

    def text(self, name: str) -> str:
        return self.member(self.control, f"./{name}").decode()

    def fields(self) -> dict[str, str]:
        fields, last = {}, None
        for line in self.text("control").splitlines():
            if line.startswith(" "):
                fields[last] += "\n" + line
            else:
                last, value = line.split(": ", 1)
                fields[last] = value
        return fields

    def modes(self) -> dict[str, int]:
        return {m.name: m.mode for m in self.data.getmembers()}


class Packages:
    """What the cases share: a folder, the packages, and a sixgate that runs here."""

    def __init__(self, folder: pathlib.Path, sixgate: pathlib.Path | None, opkg: pathlib.Path | None, apk: pathlib.Path | None):
        self.folder, self.opkg, self.apk = folder, opkg, apk
        candidates = [REPOSITORY / f"target/{kind}/sixgate" for kind in ("release", "debug")]
        self.sixgate = sixgate or next((c for c in candidates if c.exists()), None)
        self.triples = [triple for triple in targets() if built(triple)]
        assert self.sixgate, "no sixgate for this machine: cargo build"
        assert self.triples, "no target is built: cross/build TRIPLE"
        self._made = {}

    def pack(self, triple: str, out: str = "out", **environment: str) -> list[pathlib.Path]:
        out = self.folder / out / triple
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(
            [REPOSITORY / "openwrt/pack", triple, out],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), **environment},
        )
        return sorted(out.glob("*.ipk"))

    def of(self, triple: str) -> list[pathlib.Path]:
        if triple not in self._made:
            self._made[triple] = self.pack(triple)
        return self._made[triple]

    def all(self) -> list[Archive]:
        return [Archive(path) for triple in self.triples for path in self.of(triple)]

    def unpack(self, name: str) -> pathlib.Path:
        """The first package in a new root folder."""
        root = self.folder / name
        archive = Archive(self.of(self.triples[0])[0])
        archive.data.extractall(root)
        return root


def test_each_architecture_of_the_table_has_its_package(packages):
    for triple in packages.triples:
        names = [path.name for path in packages.of(triple)]
        assert names == [f"sixgate_0.1.0-r1_{arch}.ipk" for arch in sorted(targets()[triple])], names
    every = [arch for archs in targets().values() for arch in archs]
    assert len(every) == len(set(every)), "an architecture is served by two targets"


def test_the_same_input_makes_the_same_bytes(packages):
    triple = packages.triples[0]
    first = {path.name: path.read_bytes() for path in packages.of(triple)}
    binary = next((REPOSITORY / f"target/cross/{triple}").glob("*/sixgate"))
    os.utime(binary)
    umask = os.umask(0o077)
    try:
        again = packages.pack(triple, "again", TZ="Asia/Kathmandu", LC_ALL="C.UTF-8", GZIP="")
    finally:
        os.umask(umask)
    assert {path.name: path.read_bytes() for path in again} == first


def test_the_archives_are_as_ipkg_build_makes_them(packages):
    for archive in packages.all():
        assert archive.outer.getnames() == ["./debian-binary", "./data.tar.gz", "./control.tar.gz"]
        assert archive.member(archive.outer, "./debian-binary") == b"2.0\n"
        for tar in (archive.outer, archive.data, archive.control):
            for member in tar.getmembers():
                assert member.name == "." or member.name.startswith("./"), member.name
                assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
                assert member.mtime == EPOCH, member.name
        names = archive.data.getnames()
        assert names == sorted(names), "not sorted"
        assert archive.data_tar[257:265] == b"ustar  \0", "not GNU tar's format"


def test_the_fields_are_those_of_the_sdk(packages):
    makefile = (REPOSITORY / "openwrt/sixgate/Makefile").read_text()
    cargo = (REPOSITORY / "Cargo.toml").read_text()
    version = re.search(r'^version = "(.*)"', cargo, re.M)[1]
    assert f"PKG_VERSION:={version}\n" in makefile, "Makefile and Cargo.toml differ"
    for archive in packages.all():
        fields = archive.fields()
        assert list(fields) == FIELDS
        assert fields["Package"] == "sixgate"
        assert fields["Version"] == f"{version}-r1"
        assert fields["Depends"] == "libc, kmod-tun"
        assert fields["Require-User"] == "sixgate:sixgate"
        assert archive.path.name == f"sixgate_{version}-r1_{fields['Architecture']}.ipk"
        assert fields["SourceDateEpoch"] == str(EPOCH)
        # ipkg-build: the bytes of the uncompressed data.
        assert fields["Installed-Size"] == str(len(archive.data_tar))
        for line in fields["Description"].split("\n"):
            assert re.match(r" \S", line), line


def test_scripts_and_conffiles_are_those_of_the_sdk(packages):
    for archive in packages.all():
        names = {m.name: m.mode for m in archive.control.getmembers() if m.isfile()}
        scripts = ("./postinst", "./prerm", "./prerm-pkg")
        assert names == {"./conffiles": 0o644, "./control": 0o644, **dict.fromkeys(scripts, 0o755)}
        assert archive.text("conffiles") == "/etc/config/sixgate\n"
        for script, function in (("postinst", "default_postinst"), ("prerm", "default_prerm")):
            lines = archive.text(script).splitlines()
            assert lines[0] == "#!/bin/sh"
            assert lines[-3:] == [
                "[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0",
                ". ${IPKG_INSTROOT}/lib/functions.sh",
                f"{function} $0 $@",
            ]
        assert '[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0' in archive.text("postinst").splitlines()


def test_the_files_have_their_places_and_modes(packages):
    for archive in packages.all():
        files = {m.name: m.mode for m in archive.data.getmembers() if m.isfile()}
        assert files == {
            "./etc/config/sixgate": 0o600,
            "./etc/init.d/sixgate": 0o755,
            "./etc/uci-defaults/sixgate": 0o755,
            "./lib/netifd/proto/sixgate.sh": 0o755,
            "./lib/upgrade/keep.d/sixgate": 0o644,
            "./usr/sbin/sixgate": 0o755,
        }
        folders = {m.mode for m in archive.data.getmembers() if m.isdir()}
        assert folders == {0o755}
        # What sysupgrade keeps beside opkg's conffiles: keys, clients, revocations.
        assert archive.member(archive.data, "./lib/upgrade/keep.d/sixgate") == b"/etc/sixgate/\n"


def test_maintainer_scripts_call_openwrts_functions(packages):
    root = packages.folder / "scripts"
    (root / "lib").mkdir(parents=True)
    functions = 'default_postinst() { echo postinst "${1##*/}" "$2"; }\ndefault_prerm() { echo prerm "${1##*/}"; }\n'
    (root / "lib/functions.sh").write_text(functions)
    archive = packages.all()[0]
    for script, argument, words in (
        ("postinst", "configure", "postinst sixgate.postinst configure\n"),
        ("prerm", "remove", "prerm sixgate.prerm\n"),
    ):
        path = root / f"sixgate.{script}"
        path.write_text(archive.text(script))
        for instroot, expected in ((root, words), (root / "nothing", "")):
            run = subprocess.run(
                ["busybox", "ash", path, argument],
                env={"IPKG_INSTROOT": str(instroot)},
                stdout=subprocess.PIPE,
                text=True,
            )
            assert (run.returncode, run.stdout) == (0, expected), run


def test_a_package_is_within_its_budget(packages):
    for triple in packages.triples:
        # The table's budget is for the compressed program; the rest is scripts and fields.
        budget = int(row_of(triple)[6]) * 1024 + 10 * 1024
        for path in packages.of(triple):
            size = path.stat().st_size
            goal = f", the goal is {GOAL}" if "mips_24kc" in path.name else ""
            print(f"        {path.name}: {size} bytes, budget {budget}{goal}")
            assert size <= budget, f"{path.name}: {size - budget} bytes too many"
