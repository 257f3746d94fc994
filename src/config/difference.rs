//! What stands between two readings of a configuration: the directives that take effect only when
//! sockets, files and the device are opened again. Everything else can change while clients stay
//! connected.

use super::{Config, Management, Role};

/// The directives that differ and need everything to be opened again, by name. `daemon` and `cd`
/// are not among them: they are for the first start alone.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let (was, is) = (&old.process, &new.process);
    let role = |config: &Config| matches!(config.role, Role::Server(_));
    let persist = |config: &Config| match &config.role {
        Role::Server(role) => role.pool_persist.clone(),
        Role::Client(_) => None,
    };
    // Addresses that follow the line are looked for where the start has said.
    let line = |config: &Config| match &config.role {
        Role::Server(role) => role.follow.clone().map(|follow| (follow, role.v6)),
        Role::Client(_) => None,
    };
    let delegate = |config: &Config| match &config.role {
        Role::Server(role) => role.delegate.clone(),
        Role::Client(_) => None,
    };
    let export = |config: &Config| match &config.role {
        Role::Server(role) => role.export,
        Role::Client(_) => None,
    };
    [
        (role(old) != role(new), "client/server"),
        (line(old) != line(new), "server-ipv6 auto"),
        (delegate(old) != delegate(new), "delegate-ipv6"),
        (export(old) != export(new), "route-export"),
        (old.transport.local != new.transport.local, "local"),
        (old.transport.port != new.transport.port, "port"),
        (old.transport.family != new.transport.family, "proto"),
        (old.device.name != new.device.name, "dev"),
        (old.device.offload != new.device.offload, "sixgate-offload"),
        (was.user != is.user, "user"),
        (was.group != is.group, "group"),
        (was.pid_file != is.pid_file, "writepid"),
        (was.state != is.state, "sixgate-state"),
        (!same_management(was.management.as_ref(), is.management.as_ref()), "management"),
        (persist(old) != persist(new), "ifconfig-pool-persist"),
    ]
    .into_iter()
    .filter_map(|(differs, name)| differs.then_some(name))
    .collect()
}

fn same_management(old: Option<&Management>, new: Option<&Management>) -> bool {
    let parts = |management: &Management| {
        let Management { listen, password, hold, query, log_lines, client } = management.clone();
        (listen, password, hold, query, log_lines, client)
    };
    old.map(parts) == new.map(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::server as load;

    #[test]
    fn what_is_opened_once_is_told_from_what_is_not() {
        let base = "server-ipv6 fd00:1::/64\nport 1194\nmanagement 127.0.0.1 7505\n";
        let server = |text: &str| load(text).config;
        let old = server(base);
        let names = |text: &str| needs_restart(&old, &server(text));
        for same in [
            "server-ipv6 fd00:2::/64\nport 1194\nmanagement 127.0.0.1 7505\nmax-clients 9\nverb 4\n",
            "server-ipv6 fd00:1::/64\nport 1194\nmanagement 127.0.0.1 7505\nserver 10.9.0.0 255.255.255.0\n\
             push \"route 10.0.0.0 255.0.0.0\"\ntun-mtu 1400\nreneg-sec 60\nkeepalive 5 20\n",
        ] {
            assert_eq!(names(same), Vec::<&str>::new(), "{same}");
        }
        let other = "server-ipv6 fd00:1::/64\nport 1195\nproto udp4\nlocal 192.0.2.1\ndev-type tun\ndev vpn\n\
                     user nobody\nwritepid /run/x\nifconfig-pool-persist leases\n";
        assert_eq!(
            names(other),
            [
                "local",
                "port",
                "proto",
                "dev",
                "user",
                "writepid",
                "management",
                "ifconfig-pool-persist"
            ]
        );
        let old = server("server-ipv6 auto fd00:1::/64\n");
        for (lines, same) in [
            ("server-ipv6 auto fd00:1::/64\nverb 4\n", true),
            ("server-ipv6 auto fd00:2::/64\n", false),
            ("server-ipv6 auto fd00:1::/64\nndp-proxy br-lan\n", false),
            ("server-ipv6 fd00:1::/64\n", false),
        ] {
            let names = needs_restart(&old, &server(lines));
            assert_eq!(names.is_empty(), same, "{lines}");
        }
    }
}
