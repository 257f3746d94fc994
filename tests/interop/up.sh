#!/bin/bash
# `sixgate up` and a stock OpenVPN client with the profile it made, untouched: both address
# families inside and outside, a restart, a client added and one revoked while connected.
#
#   tests/interop/up.sh [BINARY]     default: target/release/sixgate, else target/debug/sixgate
#
#       this namespace (server)                        the clients' namespace
#     vs 192.0.2.1/24, 2001:db8::1/64  ------  vc 192.0.2.2/24, 2001:db8::2/64
#
# Namespaces are this run's own and end with its processes. Needs root, openvpn, iproute2, ping.

set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=${1:-$root/target/release/sixgate}
[[ -x $bin ]] || bin=$root/target/debug/sixgate
[[ -x $bin ]] || { echo "no sixgate: cargo build --release" >&2; exit 1; }
bin=$(realpath "$bin")

if [[ -z ${SIXGATE_UP_TEST:-} ]]; then
  [[ $EUID = 0 ]] || { echo "namespaces need root" >&2; exit 1; }
  SIXGATE_UP_TEST=1 exec unshare --net --mount --propagation private "$0" "$bin"
fi

work=$(mktemp -d)
pids=()
passed=0
failed=0

finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  wait 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT

# check NAME COMMAND...
check() {
  local name=$1
  shift
  if "$@" >"$work/last" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAIL $name"
    tail -qn 4 "$work"/last "$work"/*.log | sed 's/^/    /'
  fi
}

# eventually SECONDS COMMAND...
eventually() {
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < until)) || return 1
    sleep 0.2
  done
}

# The clients' namespace belongs to a process that does nothing.
unshare --net sleep 600 &
holder=$!
pids+=("$holder")
there() { nsenter --net="/proc/$holder/ns/net" "$@"; }
apart() { [[ $(readlink "/proc/$holder/ns/net") != $(readlink /proc/self/ns/net) ]]; }
eventually 5 apart

ip link add vs type veth peer name vc netns "$holder"
for place in '' there; do
  $place ip link set lo up
done
ip addr add 192.0.2.1/24 dev vs
ip addr add 2001:db8::1/64 dev vs nodad
ip link set vs up
there ip addr add 192.0.2.2/24 dev vc
there ip addr add 2001:db8::2/64 dev vc nodad
there ip link set vc up

dir=$work/state
server() {
  "$bin" up --dir "$dir" "$@" >"$work/server.log" 2>&1 &
  server=$!
  pids+=("$server")
  eventually 10 grep -q 'running: ' "$work/server.log"
}
# client NAME PROFILE [OPTION...]: a stock client, its id in $client.
client() {
  local name=$1 profile=$2
  shift 2
  # Not `there`: the id must be openvpn's own.
  nsenter --net="/proc/$holder/ns/net" openvpn --config "$profile" --dev "tun-$name" --dev-type tun --connect-retry 1 1 "$@" >"$work/$name.log" 2>&1 &
  client=$!
  pids+=("$client")
  eventually 20 grep -q 'Initialization Sequence Completed' "$work/$name.log"
}
end() {
  kill "$1"
  eventually 10 gone "$1"
}
gone() { ! kill -0 "$1" 2>/dev/null; }
v4() { sed -n 's/^server \([0-9.]*\)\.0 .*/\1.1/p' "$dir/server.conf"; }
v6() { sed -n 's/^server-ipv6 \(.*\)\/64.*/\11/p' "$dir/server.conf"; }
reach() { there ping -c 3 -i 0.2 -W 2 "$1"; }
connected() { [[ $("$bin" status --dir "$dir") == *"clients $1"* ]]; }
address_in() { there ip -o addr show "tun-$1" | sed -n "s/.* inet$2 \([0-9a-f.:]*\)\/.*scope global.*/\1/p"; }

# ---- The first start, the first client ------------------------------------------------------------

check 'up starts' server --endpoint 192.0.2.1
check 'it names the profile' grep -q "$dir/clients/client1.ovpn" "$work/server.log"
check 'over IPv4: connects' client one "$dir/clients/client1.ovpn"
one=$client
check 'over IPv4: IPv4' reach "$(v4)"
check 'over IPv4: IPv6' reach "$(v6)"
check 'status shows the client' connected 1
check 'the client can be reached on IPv4' ping -c 2 -W 2 "$(address_in one '')"
check 'the client can be reached on IPv6' ping -c 2 -W 2 "$(address_in one 6)"
check 'the client leaves' end "$one"
check 'and is forgotten at once' eventually 5 connected 0
check 'up ends' end "$server"

# ---- Another endpoint, a restart under a live client ----------------------------------------------

check 'up starts again with another endpoint' server --endpoint '[2001:db8::1]:1194'
check 'the profile follows' grep -q '^remote 2001:db8::1 1194' "$dir/clients/client1.ovpn"
check 'over IPv6: connects' client two "$dir/clients/client1.ovpn"
two=$client
check 'over IPv6: IPv4' reach "$(v4)"
check 'over IPv6: IPv6' reach "$(v6)"
kill -KILL "$server"
wait "$server" 2>/dev/null
check 'up starts after it was killed' server
# The client finds out by ping-restart, or at once from the explicit exit of the first start.
kill -USR1 "$two"
check 'the client comes back' eventually 30 reach "$(v6)"

# ---- Another client, and one shut out -------------------------------------------------------------

check 'client add' "$bin" client add laptop --dir "$dir" --out "$work/laptop.ovpn"
check 'the new client connects' client three "$work/laptop.ovpn"
three=$client
check 'the new client: IPv6' reach "$(v6)"
check 'both are there' connected 2
cp "$dir/clients/client1.ovpn" "$work/kept.ovpn"
check 'client revoke' "$bin" client revoke client1 --dir "$dir"
cp "$work/last" "$work/revoke"
check 'says that it ended a connection' grep -q '1 connection ended' "$work/revoke"
check 'the other stays' eventually 5 connected 1
check 'its profile is gone' test ! -e "$dir/clients/client1.ovpn"
check 'the revoked client is told' eventually 5 grep -q 'AUTH_FAILED' "$work/two.log"
check 'and ends' eventually 10 gone "$two"
mark=$(wc -l <"$work/server.log")
refused() { tail -n "+$((mark + 1))" "$work/server.log" | grep -qi revoked; }
nsenter --net="/proc/$holder/ns/net" openvpn --config "$work/kept.ovpn" --dev tun-four --dev-type tun >"$work/four.log" 2>&1 &
pids+=($!)
check 'with a copy of the profile it is refused, and the log says why' eventually 20 refused
check 'the other still works' there ping -I tun-three -c 2 -W 2 "$(v6)"
check 'and is the only one' connected 1
end "$three"

echo "$passed passed, $failed failed"
[[ $failed = 0 && $passed -gt 0 ]]
