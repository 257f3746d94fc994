"""A whole router: QEMU's MIPS Malta board with Debian's kernel, busybox, and the package that
openwrt/pack made, started by its own init script. It takes the server's place on the little internet.

What OpenWrt has besides (UCI's and procd's shell functions) are the stand-ins of tests/openwrt; of procd
there is only what starts the command that the script names.
"""

import gzip
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from lib.case import ROOT, SUITES
from lib.process import Failure, command

TRIPLE = "mipsel-unknown-linux-musl"
# Unpacked Debian packages of the kernel and busybox for mipsel; tests/run makes it.
DEBIAN = SUITES / "malta"
# In the order in which they need each other.
MODULES = """failover net_failover virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev
virtio_pci virtio_net tun""".split()

INIT = """#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/sbin
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
# Times of reading after 2038 would hide files from busybox.
mount -o remount,noatime /
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=755 tmp /tmp
mkdir /tmp/run
for module in {modules}; do insmod /modules/$module.ko; done
ip link set lo up
ip addr add {v4}/24 dev eth0
sysctl -qw net.ipv6.conf.eth0.accept_dad=0
ip addr add {v6}/64 dev eth0
ip link set eth0 up
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
httpd -h /www
echo MACHINE READY
while true; do sleep 1000; done
"""

# /sbin/service and rc.common in one: runs the script with the stand-ins, then does what procd would.
SERVICE = """#!/bin/sh
export TRACE=/tmp/trace IPKG_INSTROOT= ULA=fd12:3456:789a::/48
: >$TRACE
sh /stand_ins.sh "/etc/init.d/$1" "$2" || exit
# What the instance is made of, and whether that is what it was: procd leaves it alone then.
sum=$( (grep -E '^(procd_[a-z]*_param|json_)' $TRACE; cat $(sed -n 's/^procd_[a-z]*_param .file. //p' $TRACE | tr -d '[]')) | md5sum)
case "$2" in
stop) kill "$(cat /tmp/pid)" ;;
reload)
	signal=$(sed -n 's/^procd_set_param .reload_signal. //p' $TRACE | tr -d '[]')
	[ "$sum" = "$(cat /tmp/sum)" ] || kill -s "$signal" "$(cat /tmp/pid)"
	;;
start)
	$(sed -n 's/^procd_set_param .command. //p' $TRACE | tr -d '[]') >/dev/console 2>&1 &
	echo $! >/tmp/pid
	;;
esac
echo "$sum" >/tmp/sum
"""

# `date -s` for the time after 2038 too, which busybox's does not know.
SET_CLOCK = """
#include <stdlib.h>
#include <time.h>
int main(int count, char **words) {
  struct timespec now = {.tv_sec = count > 1 ? atoll(words[1]) : 0};
  return clock_settime(CLOCK_REALTIME, &now);
}
"""

# Runs what it is sent; its exit status is the last line.
CGI = """#!/bin/sh
printf 'Content-type: text/plain\\r\\n\\r\\n'
line="$(cat)"
eval "$line" </dev/null 2>&1
echo "=$?"
"""

ASK = """
import sys, urllib.request
with urllib.request.urlopen(f"http://{sys.argv[1]}/cgi-bin/run", sys.argv[2].encode(), 120) as answer:
    sys.stdout.buffer.write(answer.read())
"""

NETWORK = '''network_get_subnet() { [ "$2" = lan ] && eval "$1=192.168.1.1/24"; }
'''


class Machine:
    """The router while it runs."""

    def __init__(self, case, config: str):
        self.case = case
        self.dir = case.dir
        for needed in (DEBIAN, ROOT / "target/cross" / TRIPLE):
            if not needed.exists():
                raise Failure(f"no {needed}: run 'tests/run system'")
        # Its place on the wire is the server's.
        self.host = case.net.server
        self.host.ip("link set eth0 down")
        initramfs = self._initramfs(config)
        kernel = next((DEBIAN / "boot").glob("vmlinuz-*"))
        wire = case.net.wire
        command("ip", "-n", wire, "tuntap", "add", "tap0", "mode", "tap")
        command("ip", "-n", wire, "link", "set", "tap0", "master", "br0", "up")
        self.process = case.process([
            "ip", "netns", "exec", wire, "qemu-system-mipsel", "-M", "malta", "-cpu", "24Kc", "-m", "128",
            "-nographic", "-no-reboot", "-vga", "none", "-nic", "none", "-monitor", "none",
            "-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 panic=1 quiet",
            "-device", "virtio-net-pci,netdev=n0,romfile=",
            "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
            "-serial", "stdio",
        ], "machine")
        self.process.expect("MACHINE READY", timeout=120)
        # The way to it, for whoever asks first.
        case.until_ping(case.net.clients[0], self.host.v4)

    def run(self, line: str, check: bool = True, timeout: float = 120) -> str:
        """What a shell command prints there. One in the background must not hold on to the output."""
        asker = self.case.net.clients[0]
        answer = asker.run("python3", "-c", ASK, self.host.v4, line, timeout=timeout).stdout
        text, _, status = answer.rstrip().rpartition("=")
        with open(self.dir / "shell.log", "a") as log:
            log.write(f"# {line}\n{text}[{status}]\n")
        if check and status != "0":
            raise Failure(f"{line}: exit status {status}\n{text}")
        return text

    def memory(self) -> dict[str, int]:
        """KiB of the running server: what the process that handles packets has, and what its keeper alone has."""
        figures = r"^(\w+):\s+(\d+) kB"
        keeper = dict(re.findall(figures, self.run("cat /proc/$(cat /tmp/pid)/smaps_rollup"), re.M))
        # The kernel writes a space behind each child.
        text = self.run("read child _ </proc/$(cat /tmp/pid)/task/$(cat /tmp/pid)/children; cat /proc/$child/status")
        found = {name: int(number) for name, number in re.findall(figures, text, re.M)}
        found["VmRSS"] += int(keeper["Private_Clean"]) + int(keeper["Private_Dirty"])
        return found

    def _initramfs(self, config: str) -> Path:
        root = self.dir / "root"
        command(ROOT / "openwrt/pack", TRIPLE, self.dir / "packages")
        package = next((self.dir / "packages").glob("*_mipsel_24kc.ipk"))
        unpack(package, root)
        (root / "bin").mkdir()
        shutil.copy(DEBIAN / "bin/busybox", root / "bin/busybox")
        (self.dir / "set_clock.c").write_text(SET_CLOCK)
        command("bash", "-ec", '. cross/env "$1"; cross/zig-cc -Os -static -s -o "$2" "$3"', "bash", TRIPLE,
                root / "bin/set_clock", self.dir / "set_clock.c", cwd=ROOT)
        (root / "modules").mkdir()
        modules = next((DEBIAN / "lib/modules").iterdir())
        for name in MODULES:
            shutil.copy(next(modules.rglob(f"{name}.ko")), root / "modules")
        shutil.copy(ROOT / "tests/openwrt/stand_ins.sh", root / "stand_ins.sh")
        init = INIT.format(modules=" ".join(MODULES), v4=self.host.v4, v6=self.host.v6)
        # As on OpenWrt: /var is in memory.
        (root / "var").symlink_to("tmp")
        for path, text, mode in (
            ("init", init, 0o755), ("sbin/service", SERVICE, 0o755), ("www/cgi-bin/run", CGI, 0o755), ("lib/functions/network.sh", NETWORK, 0o644),
            ("etc/config/sixgate", config, 0o600),
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
            (root / path).chmod(mode)
        for name in ("proc", "sys", "dev", "tmp"):
            (root / name).mkdir(exist_ok=True)
        (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        files = subprocess.run(["find", ".", "-print0"], cwd=root, stdout=subprocess.PIPE, check=True).stdout
        packed = subprocess.run(["cpio", "--quiet", "-0", "-o", "-H", "newc", "-R", "0:0"], cwd=root, input=files,
                                stdout=subprocess.PIPE, check=True).stdout
        image = self.dir / "initramfs.gz"
        image.write_bytes(gzip.compress(packed, 1))
        return image


def unpack(package: Path, root: Path) -> None:
    """The files of an .ipk, as opkg lays them."""
    with tarfile.open(package) as outer:
        with tarfile.open(fileobj=outer.extractfile("./data.tar.gz")) as data:
            data.extractall(root)
