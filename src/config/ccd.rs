//! Per-client files: `client-config-dir`, what its files are called, and what they may say [9.5].
//!
//! A file goes through the same reader and the same table of directives as a configuration; what a
//! line means is `build`'s business, which file exists and is read, the shell's.

pub mod wish;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use super::problem::Problems;
use super::read::Source;
#[cfg(feature = "totp")]
use super::totp::TotpSecret;
use super::{ConfigError, Diagnostic, Files, ServerRole, build};

/// The file for clients that have none of their own.
pub const DEFAULT: &str = "DEFAULT";

/// `client-config-dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The folder.
    pub dir: PathBuf,
    /// What relative names inside a file (`config`) start from: `cd`, not the folder above.
    pub base: PathBuf,
    /// `ccd-exclusive`: who has no file of its own stays outside.
    pub exclusive: bool,
    /// It is the state folder's, and need not be there.
    pub optional: bool,
}

/// What is different for one client. The default is a client like any other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// `disable`: it may not connect.
    pub disabled: bool,
    /// `ifconfig-push`.
    pub v4: Option<FixedV4>,
    /// `ifconfig-ipv6-push`.
    pub v6: Option<FixedV6>,
    /// `iroute`, `iroute-ipv6`: networks behind it, without host bits.
    pub behind: Vec<IpNet>,
    /// `route`, `route-ipv6`: those of them that this host routes into the tunnel, and that other
    /// clients are told the way to.
    pub published: Vec<IpNet>,
    /// Not in any file: the prefix that the server has delegated to it, which is in `behind`, too.
    pub delegated: Option<Ipv6Net>,
    /// `push`, `push-remove`, `push-reset`, to be carried out in this order.
    pub push: Vec<PushChange>,
    /// `ping`, if given; zero is never.
    pub ping: Option<Duration>,
    /// `ping-restart`, if given; zero is never.
    pub ping_restart: Option<Duration>,
    /// `inactive`, if given: the time (zero is never), and the tunnel bytes in it that are enough.
    pub inactive: Option<(Duration, u64)>,
    /// `session-timeout`, if given; zero is never.
    pub session_timeout: Option<Duration>,
    /// `setenv-safe`: variables for scripts about it.
    pub variables: Vec<(String, String)>,
    /// `totp`: it has to bring a one-time code made from this.
    #[cfg(feature = "totp")]
    pub totp: Option<TotpSecret>,
}

impl ClientSettings {
    /// Adds what has been said later.
    pub fn merge(&mut self, later: Self) {
        let Self {
            disabled,
            v4,
            v6,
            behind,
            published,
            delegated,
            push,
            ping,
            ping_restart,
            inactive,
            session_timeout,
            variables,
            #[cfg(feature = "totp")]
            totp,
        } = later;
        self.disabled |= disabled;
        self.v4 = v4.or(self.v4);
        self.v6 = v6.or(self.v6);
        self.behind.extend(behind);
        self.published.extend(published);
        self.delegated = delegated.or(self.delegated);
        self.push.extend(push);
        self.ping = ping.or(self.ping);
        self.ping_restart = ping_restart.or(self.ping_restart);
        self.inactive = inactive.or(self.inactive);
        self.session_timeout = session_timeout.or(self.session_timeout);
        self.variables.extend(variables);
        #[cfg(feature = "totp")]
        {
            self.totp = totp.or(self.totp.take());
        }
    }
}

/// `ifconfig-push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedV4 {
    /// The client's address as we see it.
    pub address: Ipv4Addr,
    /// The network mask, or the other end in `net30` and `p2p`.
    pub second: Ipv4Addr,
    /// The address that the client is told, if another (there is NAT in between).
    pub alias: Option<Ipv4Addr>,
}

/// `ifconfig-ipv6-push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedV6 {
    /// The client's address and the prefix length it is told.
    pub net: Ipv6Net,
    /// The other end, if not our own address.
    pub remote: Option<Ipv6Addr>,
}

/// One change to what a client is pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushChange {
    /// Adds this option.
    Add(String),
    /// Takes out all options that start like this.
    Remove(String),
    /// Takes out all there are so far.
    Reset,
}

/// The name of a client's file; `None` for a name that no file may have. What could leave the
/// folder, or trouble a terminal, becomes an underscore, byte by byte as in OpenVPN.
pub fn file_name(client: &str) -> Option<String> {
    let safe = |byte: u8| if matches!(byte, b' '..=b'~') && byte != b'/' { byte } else { b'_' };
    let name: String = client.bytes().map(|byte| char::from(safe(byte))).collect();
    (!matches!(name.as_str(), "" | "." | "..")).then_some(name)
}

/// Reads a client's file; `base` is what relative names in it start from. The second value is what
/// looks like a mistake.
pub fn load(
    path: &Path,
    base: &Path,
    files: &dyn Files,
    role: &ServerRole,
) -> Result<(ClientSettings, Vec<Diagnostic>), ConfigError> {
    let mut problems = Problems::new(&path.to_string_lossy());
    let source = Source::from_client_file(path, base, files, &mut problems);
    let settings = build::client_settings(&source, files, &mut problems, role);
    Ok((settings, problems.finish()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{files, server, server_role};

    #[test]
    fn no_name_leads_out_of_the_folder() {
        for (client, file) in [
            ("laptop", Some("laptop")),
            ("Ann's phone (2)", Some("Ann's phone (2)")),
            ("a/b", Some("a_b")),
            ("../../etc/passwd", Some(".._.._etc_passwd")),
            ("/", Some("_")),
            ("...", Some("...")),
            ("x\n\u{7f}y", Some("x__y")),
            ("é", Some("__")),
            ("..", None),
            (".", None),
            ("", None),
        ] {
            assert_eq!(file_name(client).as_deref(), file, "{client:?}");
        }
    }

    const NETWORKS: &str = "server-ipv6 fd00:1::/64\nroute 192.168.0.0 255.255.0.0\n\
                            route-ipv6 fd00:2::/48\n";

    fn load_for(networks: &str, text: &str) -> Result<(ClientSettings, Vec<String>), String> {
        let role = server_role(&server(networks)).clone();
        let mut memory = files("");
        memory.insert("ccd/a", text);
        memory.insert("/etc/vpn/more", "iroute 192.168.9.0 255.255.255.0\n");
        let loaded = load(Path::new("ccd/a"), Path::new("/etc/vpn"), &memory, &role);
        let (settings, warnings) = loaded.map_err(|error| error.to_string())?;
        Ok((settings, warnings.iter().map(ToString::to_string).collect()))
    }

    fn good(text: &str) -> ClientSettings {
        let (settings, warnings) = load_for(NETWORKS, text).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        settings
    }

    #[test]
    fn every_command_is_understood() {
        let settings = good(
            "ifconfig-push 10.8.0.50 255.255.255.0\nifconfig-ipv6-push fd00:1::50/64 # fixed\n\
             iroute 192.168.7.0 255.255.255.0\niroute 192.168.8.1\niroute-ipv6 fd00:2:0:7::/64\n\
             push \"route 10.1.0.0 255.255.0.0\"\npush-remove route\npush-reset\n\
             push 'echo \"x y\"'\npush \"topology subnet\"\nping 5\nping-restart 30\ninactive 600 1000\nsession-timeout 86400\ndisable\nconfig more\n",
        );
        let fixed = settings.v4.unwrap();
        assert_eq!(fixed.address, Ipv4Addr::new(10, 8, 0, 50));
        assert_eq!((fixed.second, fixed.alias), (Ipv4Addr::new(255, 255, 255, 0), None));
        let fixed = settings.v6.unwrap();
        assert_eq!((fixed.net.to_string().as_str(), fixed.remote), ("fd00:1::50/64", None));
        let behind: Vec<_> = settings.behind.iter().map(ToString::to_string).collect();
        let all = ["192.168.7.0/24", "192.168.8.1/32", "fd00:2:0:7::/64", "192.168.9.0/24"];
        assert_eq!(behind, all, "in the order of the file, includes at their place");
        let push = [
            PushChange::Add("route 10.1.0.0 255.255.0.0".to_owned()),
            PushChange::Remove("route".to_owned()),
            PushChange::Reset,
            PushChange::Add("echo \"x y\"".to_owned()),
            PushChange::Add("topology subnet".to_owned()),
        ];
        assert_eq!(settings.push, push);
        assert_eq!(settings.ping, Some(Duration::from_secs(5)));
        assert_eq!(settings.ping_restart, Some(Duration::from_secs(30)));
        assert_eq!(settings.inactive, Some((Duration::from_secs(600), 1000)));
        assert_eq!(settings.session_timeout, Some(Duration::from_secs(86_400)));
        assert!(settings.disabled);
        assert_eq!(good("# nothing\n"), ClientSettings::default());
        assert_eq!(good("ping-exit 30\n").ping_restart, Some(Duration::from_secs(30)));
        let far = good(
            "ifconfig-push 10.8.0.9 255.255.255.0 10.99.0.9\nifconfig-ipv6-push fd00:1::9 fd00:1::2\n",
        );
        assert_eq!(far.v4.unwrap().alias, Some(Ipv4Addr::new(10, 99, 0, 9)));
        let v6 = far.v6.unwrap();
        assert_eq!((v6.net.prefix_len(), v6.remote), (64, "fd00:1::2".parse().ok()));
    }

    #[test]
    fn fixed_addresses_keep_within_their_constraint() {
        let main = format!("{NETWORKS}ifconfig-push-constraint 10.8.0.64 255.255.255.192\n");
        assert!(load_for(&main, "ifconfig-push 10.8.0.70 255.255.255.0\n").is_ok());
        let error = load_for(&main, "ifconfig-push 10.8.0.9 255.255.255.0\n").unwrap_err();
        assert!(error.contains("10.8.0.9 is not of 10.8.0.64/26"), "{error}");
    }

    #[test]
    fn what_does_not_belong_here_shuts_the_client_out() {
        for (line, expected) in [
            ("irout 10.0.0.0", "ccd/a:2: unknown directive `irout`; did you mean `iroute`?"),
            (
                "server 10.9.0.0 255.255.255.0",
                "ccd/a:2: `server` cannot stand in a file for one client",
            ),
            ("persist-tun", "ccd/a:2: `persist-tun` cannot stand in a file for one client"),
            ("iroute", "ccd/a:2: `iroute` takes 1 to 2 arguments, not 0"),
            ("iroute 192.168.7.1 255.255.255.0", "ccd/a:2: `iroute`: 192.168.7.1 is inside"),
            ("iroute net 255.255.255.0", "ccd/a:2: `iroute`: needs a network"),
            ("iroute-ipv6 fd00:2::", "ccd/a:2: `iroute-ipv6`: needs a prefix"),
            (
                "ifconfig-push 10.8.0.1 255.255.255.0",
                "ccd/a:2: `ifconfig-push`: 10.8.0.1 is the server's own",
            ),
            (
                "ifconfig-push 10.8.0.9 10.8.0.10",
                "ccd/a:2: `ifconfig-push`: 10.8.0.10 is not a network mask",
            ),
            (
                "ifconfig-ipv6-push fd00:1::1",
                "ccd/a:2: `ifconfig-ipv6-push`: fd00:1::1 is the server's own",
            ),
            (
                "ifconfig-ipv6-push fd00:1::9/48",
                "ccd/a:2: `ifconfig-ipv6-push`: clients accept a prefix length from 64 to 124 only",
            ),
            ("ifconfig-ipv6-push 10.8.0.9", "ccd/a:2: `ifconfig-ipv6-push`: needs an address"),
            (
                "push \"route 1.2.3.4,5\"",
                "ccd/a:2: `push`: a pushed directive cannot contain a comma",
            ),
            (
                "push \"ifconfig 10.8.0.9 255.255.255.0\"",
                "ccd/a:2: `push`: `ifconfig` is made for each client",
            ),
            ("ping x", "ccd/a:2: `ping`: needs a number"),
            ("push \"x", "ccd/a:2: a double quote"),
            ("config nowhere", "ccd/a:2: cannot read configuration file nowhere"),
            ("vlan-pvid 7", "ccd/a:2: `vlan-pvid` is refused"),
        ] {
            let error = load_for(NETWORKS, &format!("# one\n{line}\n")).unwrap_err();
            assert!(error.starts_with(expected), "{error}\nfor {line}");
        }
    }

    #[test]
    fn networks_behind_a_client_can_be_made_known_here() {
        let (settings, warnings) = load_for(
            "",
            "iroute 192.168.50.0 255.255.255.0\nroute 192.168.50.0 255.255.255.0\n\
             iroute-ipv6 fd00:50::/64\nroute-ipv6 fd00:50::/64\n",
        )
        .unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(settings.published, settings.behind);
        for (text, expected) in [
            ("route 192.168.50.0 255.255.255.0", "only together with `iroute`"),
            ("route-ipv6 fd00:50::/64", "only together with `iroute-ipv6`"),
            (
                "iroute 192.168.50.0 255.255.255.0\nroute 192.168.50.0 255.255.255.0 10.8.0.1",
                "no gateway",
            ),
            ("iroute-ipv6 fd00:50::/64\nroute-ipv6 fd00:50::/64 fd00:1::1", "no gateway"),
        ] {
            let error = load_for("", &format!("{text}\n")).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_address_may_be_its_end_alone() {
        let address = |networks: &str, line: &str| {
            let (settings, warnings) = load_for(networks, &format!("{line}\n")).unwrap();
            (settings.v6.unwrap().net.to_string(), warnings.len())
        };
        let auto = "server-ipv6 auto fd00:1::/64\nroute-ipv6 2001:db8:7::/64\n";
        for (networks, line, expected) in [
            (NETWORKS, "ifconfig-ipv6-push ::20", ("fd00:1::20/64", 0)),
            (auto, "ifconfig-ipv6-push ::20/64", ("fd00:1::20/64", 0)),
            (auto, "ifconfig-ipv6-push fd00:1::20", ("fd00:1::20/64", 0)),
            (auto, "ifconfig-ipv6-push 2001:db8:9::20", ("fd00:1::20/64", 1)),
            (auto, "ifconfig-ipv6-push 2001:db8:7::20", ("2001:db8:7::20/64", 0)),
        ] {
            let (net, count) = address(networks, line);
            assert_eq!((net.as_str(), count), expected, "{line}");
        }
        let error = load_for(auto, "ifconfig-ipv6-push ::20 fd00:1::9\n").unwrap_err();
        assert!(error.contains("leave the second argument out"), "{error}");
        assert!(load_for(auto, "ifconfig-ipv6-push ::1\n").is_err());
    }

    #[test]
    fn doubtful_lines_are_remarked() {
        for (line, expected) in [
            (
                "iroute-ipv6 fd00:3::/64",
                "ccd/a:1: `iroute-ipv6`: nothing routes fd00:3::/64 into the tunnel; add `route-ipv6 fd00:3::/64` to the server's configuration",
            ),
            ("iroute 10.1.0.0 255.255.0.0", "ccd/a:1: `iroute`: nothing routes 10.1.0.0/16"),
            (
                "ifconfig-push 10.9.0.9 255.255.255.0",
                "ccd/a:1: `ifconfig-push`: 10.9.0.9 is outside of 10.8.0.0/24",
            ),
            (
                "ifconfig-ipv6-push fd00:9::9/64",
                "ccd/a:1: `ifconfig-ipv6-push`: fd00:9::9 is outside of fd00:1::/64",
            ),
            ("push-reset", "ccd/a:1: `push-reset`: also takes `topology subnet`"),
        ] {
            let (_, warnings) = load_for(NETWORKS, &format!("{line}\n")).unwrap();
            assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
            assert!(warnings.iter().all(|text| text.starts_with(expected)), "{warnings:?}");
        }
        let exported = format!("{NETWORKS}route-export\n");
        let (_, warnings) = load_for(&exported, "iroute 10.1.0.0 255.255.0.0\n").unwrap();
        assert!(warnings.is_empty(), "routed while it is there: {warnings:?}");
        let (settings, warnings) = load_for("", "ifconfig-ipv6-push fd00:1::9/64\n").unwrap();
        assert!(warnings.iter().any(|text| text.contains("no IPv6")), "{warnings:?}");
        assert_eq!(settings.v6, None);
    }

    #[test]
    fn links_have_another_end_in_place_of_a_mask() {
        let (settings, _) =
            load_for("topology net30", "ifconfig-push 10.8.0.9 10.8.0.10\n").unwrap();
        assert_eq!(settings.v4.unwrap().second, Ipv4Addr::new(10, 8, 0, 10));
        let error = load_for("topology p2p", "ifconfig-push 10.8.0.9 255.255.255.0\n").unwrap_err();
        assert!(error.contains("the other end"), "{error}");
    }
}
