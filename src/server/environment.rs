//! What scripts are told about a client [9.12]. Every IPv4 variable has its IPv6 twin.

use crate::engine::{ClientInfo, Environment};
use crate::time::UnixTime;
use crate::wire::peer_info::PeerInfo;

/// What the client says about itself.
pub(super) fn peer_info(environment: &mut Environment, text: &str) {
    for (name, value) in PeerInfo::new(text).exported() {
        environment.set(name, value);
    }
}

/// When it came; the readable form is added where the time zone is known.
pub(super) fn arrival(environment: &mut Environment, now: UnixTime) {
    environment.set("time_unix", now.0);
}

/// Its tunnel addresses, taken from the options that tell them to the client.
pub(super) fn addresses(environment: &mut Environment, options: &[String], netmask: bool) {
    for option in options {
        let words: Vec<&str> = option.split(' ').collect();
        match words.as_slice() {
            ["ifconfig", own, second] => {
                environment.set("ifconfig_pool_remote_ip", own);
                let name = if netmask { "ifconfig_pool_netmask" } else { "ifconfig_pool_local_ip" };
                environment.set(name, second);
            }
            ["ifconfig-ipv6", own, remote] => {
                let (own, bits) = own.split_once('/').unwrap_or((own, ""));
                environment.set("ifconfig_pool_remote_ip6", own);
                environment.set("ifconfig_pool_local_ip6", remote);
                environment.set("ifconfig_pool_ip6_netbits", bits);
            }
            _ => {}
        }
    }
}

/// What it came to.
pub(super) fn departure(environment: &mut Environment, info: &ClientInfo, now: UnixTime) {
    environment.set("bytes_received", info.bytes_in);
    environment.set("bytes_sent", info.bytes_out);
    environment.set("time_duration", now.0.saturating_sub(info.since));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::describe;

    #[test]
    fn addresses_of_both_families() {
        let mut environment = Environment::new();
        describe::address(&mut environment, "untrusted", "192.0.2.1:5".parse().unwrap());
        describe::address(&mut environment, "trusted", "[2001:db8::1]:6".parse().unwrap());
        let options = [
            "ifconfig 10.8.0.2 255.255.255.0",
            "ifconfig-ipv6 fd00::1000/64 fd00::1",
            "topology subnet",
        ];
        addresses(&mut environment, &options.map(str::to_owned), true);
        let all: Vec<_> = environment.iter().collect();
        assert_eq!(
            all,
            [
                ("untrusted_ip", "192.0.2.1"),
                ("untrusted_port", "5"),
                ("trusted_ip6", "2001:db8::1"),
                ("trusted_port", "6"),
                ("ifconfig_pool_remote_ip", "10.8.0.2"),
                ("ifconfig_pool_netmask", "255.255.255.0"),
                ("ifconfig_pool_remote_ip6", "fd00::1000"),
                ("ifconfig_pool_local_ip6", "fd00::1"),
                ("ifconfig_pool_ip6_netbits", "64"),
            ]
        );
    }
}
