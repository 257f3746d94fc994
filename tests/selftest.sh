#!/bin/bash
# tests/selftest.sh COMMAND...: runs `COMMAND... selftest` and holds what it prints against what it has
# to. COMMAND is a sixgate binary, or cross/run with a target, whose emulator is asked for patience.
set -uo pipefail

passed=0 failed=0
check() { # WHAT PATTERN
  if grep -qE -- "$2" <<<"$said"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $1: no /$2/ in:"$'\n'"$said"
  fi
}

started=$SECONDS
said=$(timeout 500 "$@" selftest 2>&1)
status=$?
echo "$said"
said+=$'\n'"status $status after $((SECONDS - started)) s"
check 'exit status' '^status 0 '
check certificates '^certificates .* made in [0-9]+ ms$'
check handshake '^handshake .* over (\[::1\]|127\.0\.0\.1):[0-9]+ in [0-9]+ ms$'
for ends in '10\.8\.0\.1 to 10\.8\.0\.2' '10\.8\.0\.2 to 10\.8\.0\.1' 'fd[0-9a-f:]+::1 to fd[0-9a-f:]+' 'fd[0-9a-f:]+ to fd[0-9a-f:]+::1'; do
  check ping "^ping +$ends [0-9]+ us\$"
done
check 'all of the first transfers' '^CHACHA20-POLY1305 +10000 KB of TCP: [0-9]+ Mbit/s up, [0-9]+ Mbit/s down$'
for cipher in AES-256-GCM AES-128-GCM AES-256-CBC; do
  check "$cipher" "^$cipher +[0-9]+ KB of TCP: [0-9]+ Mbit/s up, [0-9]+ Mbit/s down\$"
done
check 'the verdict' '^passed$'

# One that cannot work says why, in one line, and fails. An emulator would itself be in the way.
if (($# == 1)); then
  said=$( (exec 3>&- 4>&- 5>&-; ulimit -n 4; exec "$1" selftest) 2>&1)
  said+=$'\n'"status $?"
  check 'a failure' '^sixgate: selftest: .+'
  check 'its exit status' '^status 1$'
  [[ $said != *passed* ]] || check 'no verdict' 'neverthere'
fi

echo "$passed passed, $failed failed"
((failed == 0))
