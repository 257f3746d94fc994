#!/bin/bash
# What sixgate does to the operating system: error lines and exit codes, addresses, MTU and routes
# while it runs and after, privileges, the sockets. No OpenVPN peer takes part.
#
#   tests/interop/os.sh [BINARY]     default: target/release/sixgate, else target/debug/sixgate
#
# Runs itself again in a network and mount namespace of its own, which end with its processes;
# nothing outside is touched. Needs root, iproute2, setpriv (util-linux) and procps.

set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=${1:-$root/target/release/sixgate}
[[ -x $bin ]] || bin=$root/target/debug/sixgate
[[ -x $bin ]] || { echo "no sixgate: cargo build --release" >&2; exit 1; }
bin=$(realpath "$bin")

if [[ -z ${SIXGATE_OS_TEST:-} ]]; then
  [[ $EUID = 0 ]] || { echo "namespaces need root" >&2; exit 1; }
  SIXGATE_OS_TEST=1 exec unshare --net --mount --propagation private "$0" "$bin"
fi

work=$(mktemp -d)
chmod 755 "$work"
pids=()
passed=0
failed=0

finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  wait
  rm -rf "$work"
}
trap finish EXIT

# check NAME COMMAND...: one result.
check() {
  local name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAIL $name"
    [[ -s $work/out ]] && sed 's/^/    /' "$work/out"
  fi
}

# fails NAME TEXT COMMAND...: exit code 1 and one line on standard error that contains TEXT.
fails() {
  local name=$1 text=$2 code
  shift 2
  timeout 20 "$@" >"$work/stdout" 2>"$work/out"
  code=$?
  check "$name: exit code 1, not $code" test "$code" = 1
  check "$name: one line" test "$(grep -c '^sixgate: ' "$work/out")" = 1
  check "$name: says '$text'" grep -q -- "$text" "$work/out"
}

# start NAME COMMAND...: in the background, until it says that it is running; its id is in $pid.
start() {
  local name=$1
  shift
  # Before the background shell does it: what the last process said must not count.
  : >"$work/out"
  "$@" >"$work/stdout" 2>"$work/out" &
  pid=$!
  pids+=("$pid")
  for _ in {1..100}; do
    grep -q 'running: ' "$work/out" && return
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  check "$name: starts" false
}

# stop NAME CODE [SIGNAL]
stop() {
  local code=0
  [[ -n ${3-TERM} ]] && kill -s "${3-TERM}" "$pid" 2>/dev/null
  for _ in {1..100}; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  wait "$pid"
  code=$?
  check "$1: ends with $2, not $code" test "$code" = "$2"
}

# Of the process that handles packets: the keeper's child, if there is a keeper.
status_of() {
  local child=
  read -r child _ <"/proc/$pid/task/$pid/children"
  awk -v key="$1:" '$1 == key { print $2 }' "/proc/${child:-$pid}/status"
}
has() { "${@:2}" 2>/dev/null | grep -qE -- "$1"; }
lacks() { ! has "$@"; }

ip link set lo up
dir=$work/state
conf=$work/server.conf
net=10.77.0
# A state folder, and a configuration with its certificates that the cases vary.
state() {
  "$bin" up --dir "$dir" >"$work/stdout" 2>"$work/out" &
  pid=$!
  pids+=("$pid")
  for _ in {1..100}; do
    grep -q 'running: ' "$work/out" && break
    sleep 0.1
  done
  kill "$pid"
  wait "$pid"
}
vary() {
  sed -e '/^sixgate-state/d; /^dev /d; /^port /d; /^server/d' "$dir/server.conf" >"$conf"
  printf '%s\n' 'port 11940' 'dev tunos0' "server $net.0 255.255.255.0" 'server-ipv6 fd77::/64' "$@" >>"$conf"
}

# ---- Arguments ------------------------------------------------------------------------------------

"$bin" --version >"$work/out" 2>&1
check 'version' grep -qE '^sixgate [0-9]+\.' "$work/out"
"$bin" frobnicate >"$work/out" 2>&1
check 'an unknown command: exit code 2' test $? = 2

# ---- What can be missing --------------------------------------------------------------------------

state
check 'up makes the state folder' test -s "$dir/clients/client1.ovpn"
check 'up closes it to others' test "$(stat -c %a "$dir")" = 700

vary
chmod 711 "$work" && cp "$bin" "$work/sixgate" && chmod 755 "$work/sixgate"
fails 'not root' 'not root' setpriv --reuid 65534 --regid 65534 --clear-groups "$work/sixgate" up --dir "$work/nobody"
fails 'a container' 'CAP_NET_ADMIN is missing' setpriv --bounding-set -net_admin "$bin" run "$conf"

mount -t tmpfs none /dev/net
fails 'no tun' 'no /dev/net/tun' "$bin" run "$conf"
umount /dev/net

sed -i '/^key /d' "$conf"
echo "key $work/absent.pem" >>"$conf"
fails 'no key' "$work/absent.pem" "$bin" run "$conf"
check 'no key: names the directive' grep -q 'key' "$work/out"

vary 'user nobody-of-that-name'
fails 'no user' "no user 'nobody-of-that-name'" "$bin" run "$conf"

# ---- While it runs, and after ---------------------------------------------------------------------

vary 'tun-mtu 1400'
start run "$bin" run "$conf"
check 'IPv4 address' has "inet $net.1/24 " ip -4 addr show tunos0
check 'IPv6 address, usable at once' has 'inet6 fd77::1/64 scope global( nodad)? *$' ip -6 addr show tunos0
check 'MTU' has 'mtu 1400 ' ip link show tunos0
check 'IPv4 route' has "^$net.0/24 dev tunos0 " ip -4 route
check 'IPv6 route' has '^fd77::/64 dev tunos0 ' ip -6 route
check 'a dual-stack socket' has '(\*|\[::\]):11940 ' ss -uln
check 'root is nobody' test "$(status_of Uid)" = "$(id -u nobody)"
check 'with one capability' test "$(status_of CapEff)$(status_of CapPrm)" = 00000000000010000000000000001000
check 'and can get no other' test "$(status_of CapBnd)$(status_of NoNewPrivs)" = 00000000000010001
conf2=$work/second.conf
sed 's/^dev .*/dev tunos1/' "$conf" >"$conf2"
fails 'port in use' 'UDP port 11940 is in use' "$bin" run "$conf2"
sed 's/^port .*/port 11941/' "$conf" >"$conf2"
fails 'device in use' 'tunos0 is in use' "$bin" run "$conf2"
stop run 0
check 'the device is gone' lacks tunos0 ip link
check 'the routes are gone' lacks 'tunos0|fd77' ip -6 route

ip tuntap add dev tunkeep0 mode tun
vary
sed -i 's/^dev .*/dev tunkeep0/' "$conf"
start persistent "$bin" run "$conf"
check 'a persistent device is used' has "inet $net.1/24 " ip addr show tunkeep0
stop persistent 0 INT
check 'a persistent device stays' has tunkeep0 ip link
check 'without the addresses' lacks 'inet (10|fd77)|inet6 fd77' ip addr show tunkeep0
ip link del tunkeep0

vary
start deleted "$bin" run "$conf"
ip link del tunos0
stop deleted 1 ''
check 'a deleted device is one line' test "$(grep -c '^sixgate: .*tunos0 was removed' "$work/out")" = 1

# ---- Privileges -----------------------------------------------------------------------------------

vary 'user nobody' 'group nogroup'
start user "$bin" run "$conf"
check 'user' test "$(status_of Uid)" = "$(id -u nobody)"
check 'group' test "$(status_of Gid)" = "$(getent group nogroup | cut -d: -f3)"
check 'no other groups' test -z "$(status_of Groups)"
check 'one capability' test "$(status_of CapEff)$(status_of CapPrm)" = 00000000000010000000000000001000
check 'none to inherit' test "$(status_of CapInh)$(status_of CapAmb)" = 00000000000000000000000000000000
check 'and can get no other' test "$(status_of CapBnd)$(status_of NoNewPrivs)" = 00000000000010001
stop user 0
check 'the device is gone' lacks tunos0 ip link

vary
chmod -R a+rX "$dir"
# Some distributions let everybody open the device: the capability decides.
mknod -m 666 "$work/tun" c 10 200 && mount --bind "$work/tun" /dev/net/tun
start unprivileged setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all,+net_admin \
  --inh-caps +net_admin --ambient-caps +net_admin "$work/sixgate" run "$conf"
check 'CAP_NET_ADMIN alone will do' has "inet $net.1/24 " ip addr show tunos0
stop unprivileged 0
umount /dev/net/tun
chmod -R go-rwx "$dir"

# ---- IPv6 switched off ----------------------------------------------------------------------------

sysctl -qw net.ipv6.conf.default.disable_ipv6=1
vary
start half "$bin" run "$conf"
check 'IPv4 alone works' has "inet $net.1/24 " ip addr show tunos0
check 'and IPv6 is explained' grep -q 'warning: .*disable_ipv6' "$work/out"
stop half 0
sed -i '/^server 10/d' "$conf"
fails 'IPv6 alone cannot' 'net.ipv6.conf.default.disable_ipv6' "$bin" run "$conf"
sysctl -qw net.ipv6.conf.default.disable_ipv6=0

# ---- Control socket, signals, background ----------------------------------------------------------

start up "$bin" up --dir "$dir" --endpoint vpn.example.net
# In memory, called after a digest of the state folder's name.
socket=/var/run/sixgate/$(realpath "$dir" | tr -d '\n' | sha256sum | cut -c-16)
check 'the control socket is private' test "$(stat -c '%a %F' "$socket")" = '600 socket'
check 'nothing but keys and texts is in the state folder' test -z "$(find "$dir" ! -type f ! -type d)"
fails 'twice' 'already running' "$bin" up --dir "$dir"
start_pid=$pid
"$bin" status --dir "$dir" >"$work/status" 2>&1
check 'status' grep -q "^sixgate .* pid $start_pid clients 0" "$work/status"
"$bin" client add gone --dir "$dir" >/dev/null 2>&1
"$bin" client revoke gone --dir "$dir" >"$work/status" 2>&1
check 'revoke tells the server' grep -q 'gone is revoked; 0 connections ended' "$work/status"
check 'the profile has the endpoint' grep -q '^remote vpn.example.net 1194' "$dir/clients/client1.ovpn"
stop up 0
check 'the control socket is gone' test ! -e "$socket"
start again "$bin" up --dir "$dir"
check 'a second start makes nothing' lacks '^made ' cat "$work/stdout"
kill -USR2 "$pid"
sleep 0.5
check 'SIGUSR2 logs the status' grep -q 'pid .* clients 0' "$work/out"
kill -KILL "$pid"
wait "$pid" 2>/dev/null
# The other of the two processes hears of it at once.
sleep 0.5
start killed "$bin" up --dir "$dir"
stop killed 0

vary 'daemon' "writepid $work/pid" "log $work/log"
timeout 20 "$bin" --config "$conf" --verb 4 >"$work/out" 2>&1
check 'daemon: the parent ends well' test $? = 0
for _ in {1..50}; do grep -q 'running: ' "$work/log" 2>/dev/null && break; sleep 0.1; done
pid=$(cat "$work/pid" 2>/dev/null || echo 0)
if [[ $pid != 0 ]]; then
  pids+=("$pid")
  check 'daemon: runs' has "inet $net.1/24 " ip addr show tunos0
  check 'daemon: has a session of its own' test "$(ps -o tty= -p "$pid" | tr -d ' ')" = '?'
  kill "$pid"
  for _ in {1..50}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  check 'daemon: ends' test ! -e "/proc/$pid"
  check 'daemon: the pid file is gone' test ! -e "$work/pid"
else
  check 'daemon: writes its id' false
fi

echo "$passed passed, $failed failed"
[[ $failed = 0 && $passed -gt 0 ]]
