"""Scripts: what they are called with, what they see, and what their answers do."""

import shlex

from lib.case import case

DUMP = """#!/bin/sh
# Called as any hook: writes its arguments and environment into a file of its own.
{{ printf 'ARGS %s\\n' "$*"; cat /proc/self/environ | tr '\\0' '\\n' | sort; }} > {folder}/$script_type.$$
exit 0
"""


def hook(t, name: str, text: str):
    path = t.write(name, text)
    path.chmod(0o755)
    return path


@case()
def dump(t):
    folder = t.dir / "dump"
    folder.mkdir()
    folder.chmod(0o777)
    script = hook(t, "dump.sh", DUMP.format(folder=folder))
    server = t.server("script-security 3", *[f"{kind} {script}" for kind in ("up", "down", "route-up", "route-pre-down", "client-connect", "client-disconnect", "learn-address", "tls-verify")],
        f"auth-user-pass-verify {script} via-env", f"auth-gen-token 3600", "push \"route 10.99.0.0 255.255.0.0\"", "route 10.77.0.0 255.255.0.0", "route-ipv6 fd77::/48", "setenv FOO bar baz" if False else "setenv FOO bar", "setenv-safe SAF 1", "username-as-common-name", "status /tmp/h/status 5")
    t.write("login", "someone\nsecret pass\n")
    client = t.client(f"auth-user-pass {t.dir}/login", "script-security 2", "setenv UV_X 5", "push-peer-info", *[f"{kind} {script}" for kind in ("up", "down", "route-up", "route-pre-down")], "pull-filter accept x")
    t.ping_server(client)
    client.stop()
    import time; time.sleep(1)
    server.process.stop()
