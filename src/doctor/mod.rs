//! `sixgate doctor`: what stands between a server and its clients, in plain words, each with the
//! command that mends it.
//!
//! Pure: [`Facts`] about this machine go in, [`Finding`]s come out; [`filter`] reads the packet
//! filter's rules. Collecting the facts is `sys::doctor`'s business.

pub mod filter;

use core::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::time::UnixTime;

/// Certificates that end within so many seconds are mentioned: 30 days.
const SOON: u64 = 30 * 86_400;
/// Room that new keys and profiles need in the state folder, in bytes.
const ROOM: u64 = 64 * 1024;
/// Least MTU with which the kernel keeps IPv6 on an interface (RFC 8200, 5).
const LEAST_MTU: u32 = 1280;
/// Address range of carriers that share one address among customers (RFC 6598).
const SHARED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// An interface over which the default route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// What was found out about this machine and the server on it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// OpenWrt's ways to change things apply.
    pub openwrt: bool,
    /// The clock.
    pub now: UnixTime,
    /// When the youngest file in the state folder was written.
    pub youngest: Option<UnixTime>,
    /// A TUN device can be made; else why not.
    pub tun: Result<(), String>,
    /// The state folder.
    pub dir: String,
    /// Whether it can be written to, and the bytes that are free; else why not.
    pub room: Result<u64, String>,
    /// Why there is no usable configuration.
    pub config: Option<String>,
    /// Port of the server.
    pub port: u16,
    /// Which families carry the tunnel: IPv4, IPv6.
    pub transport: [bool; 2],
    /// Which families are in the tunnel: IPv4, IPv6.
    pub inside: [bool; 2],
    /// MTU of the tunnel device, in bytes.
    pub tunnel_mtu: u32,
    /// Another program that has the port.
    pub port_taken: Option<String>,
    /// The server answers.
    pub running: bool,
    /// `ip_forward` and IPv6's; `None` where there is no such switch.
    pub forwarding: [Option<bool>; 2],
    /// Default routes: IPv4, IPv6.
    pub uplinks: [Option<Uplink>; 2],
    /// Addresses of all interfaces but loopback and the tunnel, by the interface's name.
    pub addresses: Vec<(String, IpNet)>,
    /// Prefixes that the line delegates to this router.
    pub delegated: Vec<Ipv6Net>,
    /// Clients are to get addresses out of them.
    pub follows_line: bool,
    /// The name or address that clients are told.
    pub endpoint: Option<String>,
    /// What it resolves to.
    pub resolved: Vec<IpAddr>,
    /// Whether the packet filter lets the port through; `None` if that could not be told.
    pub open: Option<bool>,
    /// What ends when, with the command that renews it.
    pub certificates: Vec<(String, UnixTime, String)>,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Clients cannot connect, or will not soon, or reach nothing.
    Mend,
    /// Worth knowing.
    Note,
}

/// One thing that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// What is wrong.
    pub text: String,
    /// A command, or what to do.
    pub cure: String,
}

/// All findings, those that keep a server from starting first.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut report = Report(Vec::new());
    machine(facts, &mut report);
    port(facts, &mut report);
    line(facts, &mut report);
    endpoint(facts, &mut report);
    inside(facts, &mut report);
    certificates(facts, &mut report);
    report.0
}

/// The findings as text.
pub fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        text += match finding.weight {
            Weight::Mend => "mend: ",
            Weight::Note => "note: ",
        };
        text += &finding.text;
        text += "\n      -> ";
        text += &finding.cure;
        text += "\n";
    }
    if findings.is_empty() {
        text += "nothing stands in the way\n";
    }
    text
}

struct Report(Vec<Finding>);

impl Report {
    fn mend(&mut self, text: String, cure: impl Into<String>) {
        self.0.push(Finding { weight: Weight::Mend, text, cure: cure.into() });
    }

    fn note(&mut self, text: String, cure: impl Into<String>) {
        self.0.push(Finding { weight: Weight::Note, text, cure: cure.into() });
    }
}

fn pick<'a>(facts: &Facts, openwrt: &'a str, elsewhere: &'a str) -> &'a str {
    if facts.openwrt { openwrt } else { elsewhere }
}

fn machine(facts: &Facts, report: &mut Report) {
    if let Err(reason) = &facts.tun {
        let cure = pick(facts, "opkg update; opkg install kmod-tun", "modprobe tun");
        report.mend(format!("no tunnel device can be made: {reason}"), cure);
    }
    let behind = facts.youngest.is_some_and(|youngest| youngest.0 > facts.now.0 + 86_400);
    if facts.now < UnixTime::EARLIEST || behind {
        let cure = pick(facts, "/etc/init.d/sysntpd restart", "timedatectl set-ntp true");
        report.mend("the clock is not set: certificates are judged by it".into(), cure);
    }
    match &facts.room {
        Err(reason) => {
            let dir = &facts.dir;
            let cure = match reason.contains("Read-only") {
                true => format!("mount -o remount,rw {dir}"),
                false => format!("mkdir -p {dir}; chown root {dir}; chmod 700 {dir}"),
            };
            report.mend(format!("{dir} cannot be written: {reason}"), cure);
        }
        Ok(free) if *free < ROOM => {
            let text = format!("{} is full: {} KiB are left", facts.dir, free / 1024);
            report.mend(
                text,
                pick(facts, "opkg list-installed; opkg remove ...", "df -h; du -xs /*"),
            );
        }
        Ok(_) => {}
    }
    if let Some(reason) = &facts.config {
        let cure = pick(facts, "service sixgate start", "sixgate up --endpoint HOST");
        report.mend(format!("no configuration: {reason}"), cure);
    }
}

fn port(facts: &Facts, report: &mut Report) {
    let port = facts.port;
    if let Some(other) = &facts.port_taken {
        let cure = match facts.openwrt {
            true => format!("service {other} stop; service {other} disable"),
            false => format!("systemctl disable --now {other}"),
        };
        report.mend(format!("UDP port {port} belongs to {other}"), cure);
    } else if !facts.running {
        let cure = pick(facts, "service sixgate start", "sixgate up");
        report.mend("the server is not running".into(), cure);
    }
    if facts.open == Some(false) {
        let cure = match facts.openwrt {
            true => "service sixgate restart; service firewall reload".into(),
            false => format!("nft insert rule inet filter input udp dport {port} accept"),
        };
        report.mend(format!("the firewall drops UDP port {port}"), cure);
    }
}

/// What the line gives: addresses, a prefix, room for packets.
fn line(facts: &Facts, report: &mut Report) {
    let wan = |v6: bool| {
        let [four, six] = &facts.uplinks;
        let uplink = if v6 { six } else { four };
        let on = |name: &String| uplink.as_ref().is_some_and(|link| link.name == *name);
        let all = facts.addresses.iter().filter(move |(name, _)| on(name));
        all.map(|(_, net)| net.addr()).find(|address| address.is_ipv6() == v6)
    };
    // A prefix without an address on the line itself is usual.
    let any6 = facts.uplinks[1].as_ref().and_then(|_| {
        let mut all = facts.addresses.iter().map(|(_, net)| net.addr());
        all.find(|address| is_global(*address) && address.is_ipv6())
    });
    let v4 = wan(false).filter(|_| facts.transport[0]);
    let v6 = any6.filter(|_| facts.transport[1]);
    let public4 = v4.is_some_and(is_global);
    if v4.is_none() && v6.is_none() {
        let cure = pick(facts, "ifup wan; ifup wan6; ifstatus wan", "ip route; ip address");
        report.mend("the internet side has no address, or no default route".into(), cure);
    } else if let Some(IpAddr::V4(address)) = v4.filter(|_| !public4) {
        let shared = SHARED.contains(&address);
        let text = match shared {
            true => {
                format!("the provider shares an IPv4 address among customers (CGNAT, {address})")
            }
            false => format!("another router is in front of this one ({address} is private)"),
        };
        let cure = match (shared, v6.is_some()) {
            (true, true) => {
                "clients reach this router by IPv6: the endpoint needs an AAAA record".into()
            }
            (true, false) => "ask the provider for IPv6 or an IPv4 address of your own".into(),
            (false, _) => format!("there, forward UDP port {} to {address}", facts.port),
        };
        match v6 {
            Some(_) => report.note(text, cure),
            None => report.mend(text, cure),
        }
    }
    for link in facts.uplinks.iter().flatten() {
        if link.mtu < LEAST_MTU {
            let name = &link.name;
            let cure = match facts.openwrt {
                true => format!("uci delete network.{name}.mtu; uci commit network; ifup {name}"),
                false => format!("ip link set {name} mtu 1500"),
            };
            report.mend(format!("{name} has an MTU of {}: too small for IPv6", link.mtu), cure);
        }
    }
    if facts.follows_line {
        prefix(facts, report);
    }
}

/// Whether a /64 of what is delegated is left for the tunnel.
fn prefix(facts: &Facts, report: &mut Report) {
    let taken = |net: &Ipv6Net| {
        let whole = |have: &Ipv6Net| have.prefix_len() <= net.prefix_len() && have.contains(net);
        facts.addresses.iter().any(|(_, have)| matches!(have, IpNet::V6(v6) if whole(v6)))
    };
    for net in facts.delegated.iter().filter(|net| taken(net)) {
        if net.prefix_len() < 64 {
            report.note(
                format!("the LAN takes all of {net}: clients get no global IPv6 addresses"),
                pick(
                    facts,
                    "uci set network.lan.ip6assign=64; uci commit network; service network reload",
                    "give the LAN a /64 of it",
                ),
            );
        } else {
            report.note(
                format!("the line gives one /64, {net}, and the LAN has it"),
                pick(
                    facts,
                    "uci add_list sixgate.server.directive='ndp-proxy br-lan'; uci commit sixgate; service sixgate reload",
                    "add 'ndp-proxy INTERFACE' to server.conf",
                ),
            );
        }
    }
}

fn endpoint(facts: &Facts, report: &mut Report) {
    let Some(name) = &facts.endpoint else {
        report.mend(
            "profiles do not say where this server is".into(),
            pick(
                facts,
                "uci set sixgate.server.endpoint=NAME; uci commit sixgate; service sixgate start",
                "sixgate up --endpoint NAME",
            ),
        );
        return;
    };
    let ddns = pick(facts, "service ddns restart", "mend its A and AAAA records");
    if facts.resolved.is_empty() {
        report.mend(format!("{name} does not resolve"), ddns);
        return;
    }
    let own = |address: &IpAddr| facts.addresses.iter().any(|(_, net)| net.addr() == *address);
    let public4 =
        facts.addresses.iter().any(|(_, net)| net.addr().is_ipv4() && is_global(net.addr()));
    for address in facts.resolved.iter().filter(|address| !own(address)) {
        // Behind another router's NAT, the address is that router's.
        if address.is_ipv4() && !public4 {
            continue;
        }
        report.mend(format!("{name} leads to {address}, which is not this router's"), ddns);
    }
}

fn inside(facts: &Facts, report: &mut Report) {
    let switches = [("IPv4", "net.ipv4.ip_forward"), ("IPv6", "net.ipv6.conf.all.forwarding")];
    for (index, (family, switch)) in switches.into_iter().enumerate() {
        let wanted = facts.inside.get(index) == Some(&true);
        if wanted && facts.forwarding.get(index) == Some(&Some(false)) {
            let text = format!("{family} forwarding is off: clients reach this machine alone");
            report.mend(text, format!("sysctl -w {switch}=1"));
        }
    }
    if facts.inside[1] && facts.tunnel_mtu < LEAST_MTU {
        let text = format!("tun-mtu {} is too small for IPv6 in the tunnel", facts.tunnel_mtu);
        report.mend(text, "set tun-mtu to 1280 or more, or remove the line");
    }
}

fn certificates(facts: &Facts, report: &mut Report) {
    for (name, end, cure) in &facts.certificates {
        if *end <= facts.now {
            report.mend(format!("the certificate of {name} has expired"), cure.as_str());
        } else if end.0 - facts.now.0 < SOON {
            let days = (end.0 - facts.now.0) / 86_400;
            report.note(format!("the certificate of {name} ends in {days} days"), cure.as_str());
        }
    }
}

/// Whether others on the internet can send to it.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || SHARED.contains(&v4))
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;
