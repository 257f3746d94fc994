# In place of OpenWrt's /lib/netifd/netifd-proto.sh: what a protocol's script finds there in every release
# since 19.07. Each function notes its call in $TRACE and refuses what netifd would not understand.
# In place of JSON, netifd's data are shell assignments.

# shellcheck shell=dash

fail() {
	echo "stand-in: $*" >&2
	exit 70
}
traced() { # COMMAND...: noted with its arguments in brackets, so that empty ones show
	local line="$1" word
	shift
	for word; do line="$line [$word]"; done
	echo "$line" >>"$TRACE"
}

configuring= updating=

proto_config_add_string() { [ -n "$configuring" ] && [ $# = 1 ] || fail "proto_config_add_string $*"; traced proto_config_add_string "$@"; }
proto_config_add_boolean() { [ -n "$configuring" ] && [ $# = 1 ] || fail "proto_config_add_boolean $*"; traced proto_config_add_boolean "$@"; }

json_get_vars() {
	local name
	for name; do eval "$name=\$data_$name"; done
}

is_interface() { [ "$1" = office ] || fail "no interface is called '$1'"; }

proto_run_command() {
	is_interface "$1"
	[ $# -ge 2 ] || fail "proto_run_command $*"
	# What netifd takes.
	[ $# -le 64 ] || fail "more than 64 arguments"
	traced proto_run_command "$@"
}
proto_kill_command() { is_interface "$1"; traced proto_kill_command "$@"; }
proto_notify_error() { is_interface "$1"; [ $# -ge 2 ] || fail "proto_notify_error $*"; traced proto_notify_error "$@"; }
proto_block_restart() { is_interface "$1"; traced proto_block_restart "$@"; }

proto_init_update() { # DEVICE UP [EXTERNAL]
	[ $# -ge 2 ] && [ "$2" = 1 ] && [ "${3:-0}" -le 1 ] || fail "proto_init_update $*"
	updating=1
	traced proto_init_update "$@"
}
part() { # LEAST MOST CALL...: a part of an update
	[ -n "$updating" ] || fail "$3 before proto_init_update"
	[ $(($# - 3)) -ge "$1" ] && [ $(($# - 3)) -le "$2" ] || fail "$*"
	shift 2
	traced "$@"
}
address() { case "$1" in *[!0-9a-fA-F:.]* | '') fail "'$1' is not an address" ;; esac; }
proto_add_ipv4_address() { address "$1"; part 2 4 proto_add_ipv4_address "$@"; }
proto_add_ipv6_address() { address "$1"; part 2 6 proto_add_ipv6_address "$@"; }
# ADDRESS/LENGTH[,PREFERRED,VALID], at most a /64.
proto_add_ipv6_prefix() {
	address "${1%%/*}"
	[ "${1#*/}" -ge 1 ] && [ "${1#*/}" -le 64 ] || fail "proto_add_ipv6_prefix $*"
	part 1 1 proto_add_ipv6_prefix "$@"
}
# ADDRESS LENGTH [ROUTER METRIC VALID SOURCE TABLE]
proto_add_ipv6_route() { address "$1"; part 2 7 proto_add_ipv6_route "$@"; }
proto_add_dns_server() { part 1 1 proto_add_dns_server "$@"; }
proto_add_dns_search() { part 1 1 proto_add_dns_search "$@"; }
proto_send_update() {
	is_interface "$1"
	[ -n "$updating" ] || fail "proto_send_update before proto_init_update"
	updating=
	traced proto_send_update "$@"
}

init_proto() { # PROTOCOL dump|setup|teardown INTERFACE DATA DEVICE
	wanted=$1 command=$2 interface=$3 data=$4
}
add_protocol() {
	case "$command" in
	dump)
		configuring=1 no_device=0 available=0
		"proto_$1_init_config"
		traced protocol "$1" "$no_device" "$available"
		;;
	setup | teardown)
		[ "$wanted" = "$1" ] || return 0
		eval "$data"
		"proto_$1_$command" "$interface"
		;;
	*) fail "init_proto $command" ;;
	esac
}
