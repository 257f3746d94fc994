#!/bin/bash
# What the built-in CA makes, in the hands of other people's programs: OpenSSL reads and verifies the
# certificates, and Debian's OpenVPN connects with the profiles, to an OpenVPN server that runs on
# our server.conf and keys.
#
#   tests/interop/pki.sh          SIXGATE names another binary than target/release/sixgate
#
# Needs root: it works in a network namespace of its own, which goes away with it.
set -eu
cd "$(dirname "$0")/../.."

((EUID == 0)) || { echo "pki.sh makes a network namespace: run it as root" >&2; exit 1; }
for program in openssl openvpn ip unshare; do
  command -v "$program" >/dev/null ||
    { echo "missing: apt-get install --no-install-recommends openssl openvpn iproute2 util-linux" >&2; exit 1; }
done
sixgate=$(realpath "${SIXGATE:-target/release/sixgate}") ||
  { echo "no sixgate: run 'cargo build --release'" >&2; exit 1; }
if [[ -z ${PKI_SH_INSIDE:-} ]]; then
  PKI_SH_INSIDE=1 SIXGATE=$sixgate exec unshare --net -- "$0" "$@"
fi
ip link set lo up

work=$(mktemp -d)
state=$work/state
pids=()
cleanup() {
  ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

passed=0 failed=0
# check NAME COMMAND...: the command's output is shown when it fails.
check() {
  local name=$1
  shift
  if "$@" >"$work/output" 2>&1; then
    echo "ok   pki: $name"
    passed=$((passed + 1))
  else
    echo "FAIL pki: $name"
    sed 's/^/    /' "$work/output" | tail -25
    failed=$((failed + 1))
  fi
}
fails() { ! "$@"; }
has() { grep -qE -- "$2" "$1" || { cat "$1"; return 1; }; }

# until_true SECONDS COMMAND...
until_true() {
  local tries=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    ((tries-- > 0)) || return 1
    sleep 0.1
  done
}

# up [ENDPOINT]: runs `sixgate up` until the state folder is complete; what it says goes to up.log.
up() {
  local status=0 pid
  # Without an endpoint, saying so comes last; with one, it is remembered after everything else.
  local last=("$work/up.log" 'up --endpoint HOST') options=()
  (($#)) && last=("$state/endpoint" "^${1//[\[\]]/.}\$") options=(--endpoint "$1")
  "$sixgate" up --dir "$state" "${options[@]}" >"$work/up.log" 2>&1 &
  pid=$!
  pids+=("$pid")
  until_true 20 has "${last[@]}" || { status=1; cat "$work/up.log"; }
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  return $status
}

# block TAG FILE: the contents of an inline block.
block() { sed -n "/^<$1>\$/,/^<\/$1>\$/p" "$2" | sed '1d;$d'; }

# ---- Certificates ---------------------------------------------------------------------------------

check 'up makes the state folder' up
profile=$state/clients/client1.ovpn
ca=$state/ca.crt
block cert "$profile" >"$work/client.crt"
block key "$profile" >"$work/client.key"
block ca "$profile" >"$work/ca.crt"

text() { openssl x509 -in "$1" -noout -text; }
extension() { openssl x509 -in "$1" -noout -ext "$2" | sed 1d | tr -d ' \n'; }
same_key() { [[ $(openssl x509 -in "$1" -noout -pubkey) == "$(openssl pkey -in "$2" -pubout)" ]]; }
verify() { openssl verify -x509_strict -CAfile "$ca" "$@"; }

check 'the profile holds the CA certificate' diff "$ca" "$work/ca.crt"
check 'the CA verifies itself' verify "$ca"
check 'the server certificate is for servers' verify -purpose sslserver "$state/server.pem"
check 'the server certificate is not for clients' fails verify -purpose sslclient "$state/server.pem"
check 'the client certificate is for clients' verify -purpose sslclient "$work/client.crt"
check 'the client certificate is not for servers' fails verify -purpose sslserver "$work/client.crt"
# Both are valid for a router that has just booted without a clock.
check 'the server certificate is valid in 1970' verify -attime 60 "$state/server.pem"
check 'the client certificate is valid in 1970' verify -attime 60 "$work/client.crt"
check 'the server certificate ends within two years' \
  fails verify -attime $(($(date +%s) + 2 * 366 * 86400)) "$state/server.pem"
check 'server key and certificate belong together' same_key "$state/server.pem" "$state/server.pem"
check 'client key and certificate belong together' same_key "$work/client.crt" "$work/client.key"
check 'the client key is PKCS#8' has "$work/client.key" '^-----BEGIN PRIVATE KEY-----$'
# OpenVPN 3 compares the whole key usage.
check 'server key usage' test "$(extension "$state/server.pem" keyUsage)" = DigitalSignature,KeyAgreement
check 'client key usage' test "$(extension "$work/client.crt" keyUsage)" = DigitalSignature
check 'CA key usage' test "$(extension "$ca" keyUsage)" = CertificateSign,CRLSign
check 'the list has the serial number' \
  has "$state/issued" "^$(openssl x509 -in "$work/client.crt" -noout -serial | cut -d= -f2 | tr A-F a-f) client client1 "

# ---- Profiles -------------------------------------------------------------------------------------

# openvpn_says SECONDS PATTERN LOG ARGUMENT...
openvpn_says() {
  local seconds=$1 pattern=$2 log=$3 pid
  shift 3
  openvpn "$@" >"$log" 2>&1 &
  pid=$!
  pids+=("$pid")
  until_true "$seconds" grep -qE -- "$pattern" "$log" || { cat "$log"; return 1; }
}

check 'without an address, up says what to fill in' has "$work/up.log" 'up --endpoint HOST'
check 'without an address, the profile is marked' has "$profile" '^remote your-server.invalid 1194$'
check 'OpenVPN reads the profile with the placeholder' \
  openvpn_says 5 'annot resolve host address: your-server.invalid' "$work/placeholder.log" \
  --config "$profile" --dev null --resolv-retry 1

check 'up with an IPv6 address' up '[::1]:1195'
check 'OpenVPN takes the IPv6 address' \
  openvpn_says 5 'UDPv6 link remote: \[AF_INET6\]::1:1195' "$work/v6.log" --config "$profile" --dev null
check 'up with another address' up 127.0.0.1
check 'OpenVPN takes the IPv4 address' \
  openvpn_says 5 'UDPv4 link remote: \[AF_INET\]127.0.0.1:1194' "$work/v4.log" --config "$profile" --dev null

check 'client add --out' "$sixgate" client add anna --dir "$state" --out "$work/anna.ovpn"
check 'the new profile has the address, too' has "$work/anna.ovpn" '^remote 127.0.0.1 1194$'
check 'a name is taken once' fails "$sixgate" client add anna --dir "$state"

# ---- OpenVPN on our files, both ends ---------------------------------------------------------------

# The clients above still knock; they must not get in the way.
kill "${pids[@]}" 2>/dev/null || true
wait 2>/dev/null || true
pids=()
# Less what only sixgate knows.
sed -e '/^sixgate-state /d' -e 's/^server-ipv6 auto /server-ipv6 /' "$state/server.conf" >"$work/stock.conf"
check 'OpenVPN serves with our server.conf and keys' \
  openvpn_says 10 'Initialization Sequence Completed' "$work/server.log" --config "$work/stock.conf" --dh none
for client in "$profile" "$work/anna.ovpn"; do
  name=$(basename "$client" .ovpn)
  # The handshake is the point; a second tunnel in one namespace would only collide.
  check "$name connects with its profile" \
    openvpn_says 15 'Initialization Sequence Completed' "$work/$name.log" \
    --config "$client" --dev null --ifconfig-noexec --route-noexec
  check "the server knows $name" has "$work/server.log" "\[$name\] Peer Connection Initiated"
done

# ---- Revocation -----------------------------------------------------------------------------------

serial=$(block cert "$work/anna.ovpn" | openssl x509 -noout -serial | cut -d= -f2 | tr A-F a-f)
check 'client revoke' "$sixgate" client revoke anna --dir "$state"
check 'the serial number is listed' has "$state/revoked" "^$serial anna 20"
check 'the name is free again' "$sixgate" client add anna --dir "$state"
check 'the profile is in the state folder' test -s "$state/clients/anna.ovpn"

echo "$passed passed, $failed failed"
((failed == 0))
