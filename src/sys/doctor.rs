//! The facts for [`crate::doctor`]: what the kernel, the state folder and the packet filter's own
//! programs say. Changes nothing, and goes on where something cannot be found out.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use ipnet::{IpNet, Ipv6Net};

use super::clock::unix_time;
use super::netlink::{Netlink, interface_name};
use super::store::DiskFiles;
use super::{check, commands, ctl_socket, state};
use crate::cli;
use crate::config::{self, Config, Role};
use crate::doctor::{Facts, Uplink, Weight, examine, filter, render};
use crate::pki::certificate::Certificate;
use crate::pki::endpoint::{DEFAULT_PORT, Endpoint};
use crate::time::UnixTime;

/// What OpenWrt's init script makes of UCI.
const OPENWRT_CONF: &str = "/var/etc/sixgate/server.conf";

/// `sixgate doctor`: prints what is found; an error if something must be mended.
pub fn doctor(options: &cli::Doctor) -> Result<(), String> {
    let findings = examine(&collect(&options.dir, options.config.as_deref()));
    commands::print(&render(&findings))?;
    match findings.iter().filter(|finding| finding.weight == Weight::Mend).count() {
        0 => Ok(()),
        1 => Err("one thing must be mended".into()),
        several => Err(format!("{several} things must be mended")),
    }
}

fn collect(dir: &Path, config: Option<&Path>) -> Facts {
    let openwrt = Path::new("/etc/openwrt_release").exists();
    let given = config.map(Path::to_owned);
    let made = Path::new(OPENWRT_CONF).exists().then(|| PathBuf::from(OPENWRT_CONF));
    let file = given.or(made).unwrap_or_else(|| dir.join("server.conf"));
    let loaded = config::load_file(&file, &DiskFiles).map(|loaded| loaded.config);
    let config_fault = loaded.as_ref().err().map(ToString::to_string);
    let config = loaded.ok();
    let role = match config.as_ref().map(|config| &config.role) {
        Some(Role::Server(role)) => Some(role),
        _ => None,
    };
    let port = config.as_ref().map_or(DEFAULT_PORT, |config| config.transport.port);
    let family = config.as_ref().and_then(|config| config.transport.family);
    let pid = ctl_socket::ask(dir, "pid").ok().and_then(|answer| answer.trim().parse().ok());
    let endpoint = read(&dir.join("endpoint")).and_then(|text| Endpoint::parse(text.trim()).ok());
    let tunnel =
        role.map(|role| [role.v4.map(|v4| v4.addr().into()), role.v6.map(|v6| v6.addr().into())]);
    let network = Network::read(&tunnel.unwrap_or_default());
    Facts {
        openwrt,
        now: unix_time(),
        youngest: youngest(dir),
        tun: fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .map(drop)
            .map_err(|error| error.to_string()),
        dir: dir.display().to_string(),
        room: room(dir).map_err(|error| error.to_string()),
        config: config_fault,
        port,
        transport: [family != Some(true), family != Some(false)],
        inside: role.map_or([false; 2], |role| [role.v4.is_some(), role.v6.is_some()]),
        tunnel_mtu: config.as_ref().map_or(1500, |config| config.device.mtu.into()),
        port_taken: owner_of(port)
            .filter(|(owner, _)| pid.is_none() || (Some(*owner) != pid && parent(*owner) != pid))
            .map(|(_, name)| name),
        running: pid.is_some(),
        forwarding: ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].map(|switch| {
            read(Path::new(&format!("/proc/sys/net/{switch}"))).map(|text| text.trim() != "0")
        }),
        uplinks: network.uplinks,
        addresses: network.addresses,
        delegated: read(Path::new("/proc/net/ipv6_route"))
            .map(|text| delegated(&text))
            .unwrap_or_default(),
        follows_line: role.is_some_and(|role| role.follow.is_some()),
        resolved: endpoint.as_ref().map(|endpoint| resolve(endpoint.host())).unwrap_or_default(),
        endpoint: endpoint.map(|endpoint| endpoint.host().to_owned()),
        open: rules().and_then(|rules| filter::allows(&rules, port)),
        certificates: certificates(dir, config.as_ref()),
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// When the youngest file in a folder was written.
fn youngest(dir: &Path) -> Option<UnixTime> {
    let files = fs::read_dir(dir).ok()?.flatten();
    let times = files.filter_map(|file| file.metadata().ok()?.modified().ok());
    let seconds = times.filter_map(|time| Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs()));
    seconds.max().map(UnixTime)
}

/// Bytes that are free in a folder that we may write to; of the one above where there is none yet.
fn room(dir: &Path) -> io::Result<u64> {
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(dir);
    let path = CString::new(there.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    check(unsafe { libc::access(path.as_ptr(), libc::W_OK) })?;
    let mut facts = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: as above, and `facts` has room for what is written; zeroes are a valid value of it.
    let facts = unsafe {
        check(libc::statvfs(path.as_ptr(), facts.as_mut_ptr()))?;
        facts.assume_init()
    };
    #[allow(clippy::useless_conversion, reason = "32 bits on some targets")]
    Ok(u64::from(facts.f_bavail).saturating_mul(u64::from(facts.f_frsize)))
}

/// The process that has started another one; a server's sockets are held by what its keeper has forked.
fn parent(pid: u32) -> Option<u32> {
    let status = read(Path::new(&format!("/proc/{pid}/status")))?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Which process has a UDP port, with its name.
fn owner_of(port: u16) -> Option<(u32, String)> {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|table| read(Path::new(table)));
    let inodes: Vec<String> = tables
        .iter()
        .flatten()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (_, local) = words.nth(1)?.rsplit_once(':')?;
            let inode = words.nth(7)?;
            (u16::from_str_radix(local, 16) == Ok(port)).then(|| format!("socket:[{inode}]"))
        })
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let owner =
        processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).ok();
            open.into_iter()
                .flatten()
                .flatten()
                .filter_map(|fd| fs::read_link(fd.path()).ok())
                .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
        });
    // Without one that can be seen: the kernel's, or another user's.
    let name = owner.and_then(|pid| read(Path::new(&format!("/proc/{pid}/comm"))));
    Some((owner.unwrap_or(0), name.map_or("another program".into(), |name| name.trim().to_owned())))
}

#[derive(Default)]
struct Network {
    uplinks: [Option<Uplink>; 2],
    addresses: Vec<(String, IpNet)>,
}

impl Network {
    /// Interfaces with one of the `tunnel`'s addresses are left out.
    fn read(tunnel: &[Option<IpAddr>; 2]) -> Self {
        let Ok(mut netlink) = Netlink::open() else { return Self::default() };
        let all = netlink.local_addresses().unwrap_or_default();
        let is_tunnel =
            |index| all.iter().any(|(at, net)| *at == index && tunnel.contains(&Some(net.addr())));
        let addresses = all
            .iter()
            .filter(|(index, net)| !net.addr().is_loopback() && !is_tunnel(*index))
            .map(|(index, net)| (interface_name(*index), *net))
            .collect();
        let uplinks = [false, true].map(|v6| {
            let routes = netlink.main_routes(v6).unwrap_or_default();
            let defaults = routes.iter().filter(|route| route.destination.prefix_len() == 0);
            let name = interface_name(defaults.min_by_key(|route| route.metric)?.interface);
            let mtu = read(Path::new(&format!("/sys/class/net/{name}/mtu")))?;
            Some(Uplink { mtu: mtu.trim().parse().ok()?, name })
        });
        Self { uplinks, addresses }
    }
}

/// Prefixes that netifd was given: it makes each unreachable, but for what is in use.
fn delegated(table: &str) -> Vec<Ipv6Net> {
    /// RTF_REJECT of linux/route.h.
    const REJECT: u32 = 0x0200;
    let read = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (&destination, &len, &flags) = (words.first()?, words.get(1)?, words.get(8)?);
        let bits = u128::from_str_radix(destination, 16).ok()?;
        let net =
            Ipv6Net::new(Ipv6Addr::from_bits(bits), u8::from_str_radix(len, 16).ok()?).ok()?;
        let global = bits >> 125 == 1 && (32..=64).contains(&net.prefix_len());
        (global && u32::from_str_radix(flags, 16).ok()? & REJECT != 0).then_some(net)
    };
    table.lines().filter_map(read).collect()
}

fn resolve(host: &str) -> Vec<IpAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = (bare, 0).to_socket_addrs();
    let mut addresses: Vec<IpAddr> = found.into_iter().flatten().map(|at| at.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The packet filter's rules, as the program that is there prints them.
fn rules() -> Option<String> {
    [("nft", ["list", "ruleset"].as_slice()), ("iptables-save", &[])].into_iter().find_map(
        |(program, arguments)| {
            let run = Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output();
            let output = run.ok().filter(|output| output.status.success())?.stdout;
            Some(String::from_utf8_lossy(&output).into_owned())
        },
    )
}

fn certificates(dir: &Path, config: Option<&Config>) -> Vec<(String, UnixTime, String)> {
    let mut all = Vec::new();
    let own = config.map(|config| (&config.tls, config.process.state.is_some()));
    if let Some((tls, renews)) = own {
        let cure = |what: &str| format!("a new one from whoever made {what}");
        if let Ok(server) = Certificate::from_pem(&tls.cert) {
            let cure =
                if renews { "restart sixgate: it renews its own".into() } else { cure("it") };
            all.push(("the server".into(), server.not_after, cure));
        }
        if let Ok(ca) = Certificate::from_pem(&tls.ca) {
            all.push(("the authority".into(), ca.not_after, cure("it, and new profiles")));
        }
    }
    for client in state::client_list(dir).map(|list| list.clients).unwrap_or_default() {
        if client.revoked.is_none() {
            let name = client.name.to_string();
            let cure = format!("sixgate client revoke {name}; sixgate client add {name}");
            all.push((name, client.expires, cure));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delegated_prefixes_are_the_unreachable_global_ones() {
        let line = |net: &str, len: &str, flags: &str| {
            format!(
                "{net} {len} {0} 00 {0} 7fffffff 00000001 00000000 {flags}       lo\n",
                "0".repeat(32)
            )
        };
        let text = line("20010db8000000000000000000000000", "3c", "00200200")
            + &line("20010db8000100000000000000000000", "40", "00000001")
            + &line("fd000000000000000000000000000000", "30", "00200200")
            + &line("00000000000000000000000000000000", "00", "00200200")
            + "short line\n";
        assert_eq!(delegated(&text), ["2001:db8::/60".parse::<Ipv6Net>().unwrap()]);
    }

    #[test]
    fn the_owner_of_a_port_is_found() {
        let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(owner_of(port).unwrap().0, std::process::id());
        drop(socket);
        assert_eq!(owner_of(port), None);
    }

    #[test]
    fn a_folder_tells_its_room() {
        assert!(room(&std::env::temp_dir()).unwrap() > 0);
        assert!(room(Path::new("/proc/self/not-there")).is_err());
    }
}
