#!/bin/sh
# stand_ins.sh SCRIPT ACTION: runs an init script as OpenWrt's rc.common does, or, with the action `source`,
# a script as its default_postinst and default_prerm do. There are stand-ins for what it finds on a
# router: UCI's and procd's shell functions, uci, ubus, jshn, logger. Each notes its calls in
# $TRACE, one a line. There are only those that the script may count on in every release since 19.07,
# and each refuses what the real one would not understand.
#
# Run by busybox's ash with a PATH of nothing but applets that OpenWrt has.

initscript=$1
action=$2

fail() {
	echo "stand-in: $*" >&2
	exit 70
}
trace() { echo "$*" >>"$TRACE"; }
traced() { # COMMAND...: noted with its arguments in brackets, so that empty ones show
	local line="$1" word
	shift
	for word; do line="$line [$word]"; done
	trace "$line"
}

# ---- UCI: its files are shell commands ---------------------------------------------------------------

config() { # TYPE [NAME]
	count=$((count + 1))
	section="${2:-cfg$count}"
	sections="$sections $section"
	eval "uci_${section}_TYPE=\$1 uci_${section}_OPTIONS="
}
option() { eval "uci_${section}_$1=\$2 uci_${section}_OPTIONS=\"\$uci_${section}_OPTIONS $1\""; }
list() {
	local length
	eval "length=\${uci_${section}_$1_LENGTH:-0}"
	length=$((length + 1))
	eval "uci_${section}_$1_LENGTH=$length uci_${section}_$1_ITEM$length=\$2"
}
config_load() {
	[ $# = 1 ] || fail "config_load $*"
	[ -f "$IPKG_INSTROOT/etc/config/$1" ] || fail "there is no /etc/config/$1"
	sections= count=0
	. "$IPKG_INSTROOT/etc/config/$1"
}
config_get() { # VARIABLE SECTION OPTION [DEFAULT]
	[ $# -ge 3 ] || fail "config_get $*"
	eval "$1=\${uci_$2_$3:-\$4}"
}
config_get_bool() {
	local _value
	config_get _value "$2" "$3" "$4"
	case "$_value" in
	1 | on | true | yes | enabled) _value=1 ;;
	0 | off | false | no | disabled) _value=0 ;;
	*) _value="$4" ;;
	esac
	eval "$1=\$_value"
}
config_foreach() { # FUNCTION TYPE
	local _function="$1" _type="$2" _section _is
	for _section in $sections; do
		eval "_is=\$uci_${_section}_TYPE"
		[ "$_is" != "$_type" ] || "$_function" "$_section"
	done
}
config_list_foreach() { # SECTION OPTION FUNCTION [ARGUMENTS]
	local _section="$1" _option="$2" _function="$3" _length _at=1 _value
	shift 3
	eval "_length=\${uci_${_section}_${_option}_LENGTH:-0}"
	while [ $_at -le "$_length" ]; do
		eval "_value=\$uci_${_section}_${_option}_ITEM$_at"
		"$_function" "$_value" "$@"
		_at=$((_at + 1))
	done
}
# The program, as far as scripts need it: on /etc/config/network, options without lists.
uci() {
	local _argument _section _option _value
	[ "$1" != -q ] || shift
	_argument="${2#network}"
	case "$1 $2" in
	'get network.globals.ula_prefix') [ -n "$ULA" ] && echo "$ULA" ;;
	'get network.'*.*) uci_find && [ -n "$_option" ] && echo "$_value" ;;
	'get network.'*) uci_find && eval "echo \$uci_${_section}_TYPE" ;;
	'show network' | 'show network.'*) uci_find && uci_show ;;
	'delete network.'*)
		uci_find || return 1
		[ -n "$_section" ] && [ "$_argument" = ".$_section" ] || fail "uci delete $2"
		sections="$(echo "$sections" | sed "s/ $_section\\>//")"
		uci_staged=1
		;;
	'commit network') uci_commit ;;
	'batch ')
		while read -r _argument _value; do
			case "$_argument $_value" in
			'set network.'*=*) uci_set "${_value#network.}" ;;
			'commit network') uci_commit ;;
			*) fail "uci batch: $_argument $_value" ;;
			esac
		done
		;;
	*) fail "uci $*" ;;
	esac
}
# Reads the file, unless there are changes that are not committed, and looks for `.SECTION[.OPTION]`.
uci_find() {
	[ -n "$uci_staged" ] || config_load network
	_section="${_argument#.}"
	_section="${_section%%.*}" _option=
	[ -n "$_section" ] || return 0
	case "$sections " in *" $_section "*) ;; *) return 1 ;; esac
	case "$_argument" in .*.*) _option="${_argument##*.}" ;; *) return 0 ;; esac
	eval "_value=\$uci_${_section}_$_option"
	[ -n "$_value" ]
}
uci_show() {
	local _each
	for _section in ${_section:-$sections}; do
		eval "echo \"network.$_section=\$uci_${_section}_TYPE\""
		for _each in $(eval "echo \$uci_${_section}_OPTIONS"); do
			eval "echo \"network.$_section.$_each='\$uci_${_section}_$_each'\""
		done
	done
}
uci_set() { # SECTION=TYPE or SECTION.OPTION=VALUE
	[ -n "$uci_staged" ] || config_load network
	uci_staged=1
	case "$1" in
	*.*=*)
		section="${1%%.*}" _option="${1#*.}"
		case "$sections " in *" $section "*) ;; *) fail "uci set network.$1: no such section" ;; esac
		option "${_option%%=*}" "${1#*=}"
		;;
	*) config "${1#*=}" "${1%%=*}" ;;
	esac
}
uci_commit() {
	local _section _each
	trace uci commit network
	[ -n "$uci_staged" ] || return 0
	for _section in $sections; do
		eval "echo \"config \$uci_${_section}_TYPE '$_section'\""
		for _each in $(eval "echo \$uci_${_section}_OPTIONS"); do
			eval "echo \"	option $_each '\$uci_${_section}_$_each'\""
		done
	done >"$IPKG_INSTROOT/etc/config/network"
	uci_staged=
}
ubus() {
	[ "$*" = 'call network reload' ] || fail "ubus $*"
	traced ubus "$@"
}

logger() {
	[ "$1 $2 $3" = '-t sixgate -p' ] || fail "logger $*"
	shift 3
	traced logger "$@"
}

# ---- procd and jshn --------------------------------------------------------------------------------

depth=0
json() { # CHANGE CALL...
	depth=$((depth + $1))
	[ $depth -ge 0 ] || fail "closed more than was opened: $*"
	shift
	traced "$@"
}
json_add_array() { json 1 json_add_array "$@"; }
json_close_array() { json -1 json_close_array "$@"; }
json_add_object() { json 1 json_add_object "$@"; }
json_close_object() { json -1 json_close_object "$@"; }
json_add_string() {
	[ $# = 2 ] || fail "json_add_string $*"
	json 0 json_add_string "$@"
}
procd_open_data() { json 1 procd_open_data "$@"; }
procd_close_data() { json -1 procd_close_data "$@"; }
procd_open_instance() { json 1 procd_open_instance "$@"; }
procd_close_instance() { json -1 procd_close_instance "$@"; }
procd_set_param() {
	case "$1" in
	command | file | respawn | netdev | env | limits) ;;
	stdout | stderr | term_timeout | reload_signal | no_new_privs | user | group | pidfile)
		[ $# = 2 ] || fail "procd_set_param $*"
		;;
	*) fail "procd_set_param $*" ;;
	esac
	traced procd_set_param "$@"
}
procd_append_param() {
	case "$1" in
	command | file) ;;
	*) fail "procd_append_param $*" ;;
	esac
	traced procd_append_param "$@"
}
procd_set_config_changed() { traced procd_set_config_changed "$@"; }
procd_add_reload_trigger() { traced procd_add_reload_trigger "$@"; }
procd_add_reload_interface_trigger() {
	[ $# = 1 ] || fail "procd_add_reload_interface_trigger $*"
	traced procd_add_reload_interface_trigger "$@"
}

# ---- default_postinst, default_prerm ----------------------------------------------------------------

if [ "$action" = source ]; then
	(cd "${initscript%/*}" && . "$initscript")
	exit
fi

# ---- rc.common -------------------------------------------------------------------------------------

. "$initscript"

[ "$USE_PROCD" = 1 ] || fail "USE_PROCD is not set"
case "$START$STOP" in *[!0-9]* | '') fail "START and STOP must be numbers" ;; esac
case "$action" in
start | reload)
	start_service
	result=$?
	[ $depth = 0 ] || fail "$depth objects are still open"
	service_triggers
	service_started
	exit $result
	;;
stop)
	service_stopped
	;;
status) status_service ;;
*) fail "no action $action" ;;
esac
