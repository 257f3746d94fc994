//! A configuration in words: what `sixgate check` prints.

use super::option::TunnelOption;
use super::{
    Config, Export, Follow, ManagementAddress, Mssfix, Process, Role, ServerRole, Timers,
    Transport, Via,
};

/// What would be done, line by line.
pub(super) fn lines(config: &Config) -> Vec<String> {
    let mut out = Vec::new();
    let socket = socket(&config.transport);
    match &config.role {
        Role::Server(role) => {
            out.push(format!("be a server, listening on {socket}"));
            server(role, &mut out);
        }
        Role::Client(role) => {
            out.push(format!("be a client, sending from {socket}"));
            for remote in &role.remotes {
                out.push(format!(
                    "connect to {} port {} over {}",
                    remote.host,
                    remote.port,
                    families(remote.family)
                ));
            }
            if !role.options.is_empty() {
                let mut names: Vec<_> = role.options.iter().map(TunnelOption::name).collect();
                names.dedup();
                let names = names.join(", ");
                out.push(format!("put together what the server pushes with this file's {names}"));
            }
            if role.credentials.is_some() {
                out.push("send a user name and password".to_owned());
            }
        }
    }
    let name = config.device.name.as_deref().unwrap_or("a TUN device named by the system");
    out.push(format!("use {name} with MTU {}", config.device.mtu));
    out.push(format!("wrap the control channel with {}", wrapping(config)));
    out.push(tls(config));
    let ciphers: Vec<_> = config.data_ciphers.iter().map(|cipher| cipher.as_str()).collect();
    let order = if config.fastest_cipher {
        " (ChaCha20 first if either has no AES instructions)"
    } else {
        ""
    };
    let ciphers = ciphers.join(", ");
    out.push(format!("encrypt data with the first of {ciphers} that both ends know{order}"));
    out.push(match config.mssfix {
        None => "leave the segment size of TCP alone".to_owned(),
        Some(Mssfix::Outer(size)) => {
            format!("limit TCP segments so that packets outside have at most {size} bytes")
        }
        Some(Mssfix::Payload(size)) => {
            format!("limit TCP segments so that UDP payloads have at most {size} bytes")
        }
        Some(Mssfix::Fixed(size)) => {
            format!("limit TCP segments so that packets inside have at most {size} bytes")
        }
    });
    timers(&config.timers, &mut out);
    process(&config.process, &mut out);
    if config.process.user.is_some() || config.process.group.is_some() {
        let user = config.process.user.as_deref().unwrap_or("the same");
        let group = config.process.group.as_deref().unwrap_or("the same");
        out.push(format!("run as user {user}, group {group}, once started"));
    }
    out
}

fn server(role: &ServerRole, out: &mut Vec<String>) {
    if let Some(own) = role.v4 {
        let (net, topology) = (own.trunc(), role.topology.as_str());
        let pool = role.v4_pool.filter(|pool| pool.count > 0).map(|pool| pool.bounds());
        out.push(match pool {
            Some((first, last)) => format!(
                "give clients IPv4 addresses of {net} from {first} to {last} (topology {topology}); {} is the server's",
                own.addr()
            ),
            None => format!(
                "give IPv4 addresses only to clients with a fixed one (topology {topology}); {} is the server's",
                own.addr()
            ),
        });
    }
    if let Some(own) = role.v6 {
        let net = own.trunc();
        let pool = role.v6_pool.filter(|pool| pool.count > 0).map(|pool| pool.bounds());
        let source = match &role.follow {
            None => None,
            Some(Follow::Tunnel) => Some("the tunnel device"),
            Some(Follow::Neighbours(name)) => Some(name.as_str()),
        };
        out.push(match (pool, source) {
            (_, Some(source)) => format!(
                "give clients IPv6 addresses of the global prefix that {source} has, and of {net}; {} is the server's",
                own.addr()
            ),
            (Some((first, last)), None) => format!(
                "give clients IPv6 addresses of {net} from {first} to {last}; {} is the server's",
                own.addr()
            ),
            (None, None) => format!(
                "give IPv6 addresses only to clients with a fixed one; {} is the server's",
                own.addr()
            ),
        });
    }
    for route in &role.routes {
        let metric = match route.metric {
            0 => String::new(),
            metric => format!(", metric {metric}"),
        };
        let way = match route.via {
            Via::Tunnel => "into the tunnel".to_owned(),
            Via::Router(router) => format!("to {router}"),
            Via::Outside => "to the system's default router".to_owned(),
        };
        out.push(format!("route {} {way}{metric}", route.destination));
    }
    if let Some(Export { metric, table, protocol }) = role.export {
        out.push(format!(
            "keep kernel routes to clients' addresses and networks in table {table}, protocol {protocol}, metric {metric}"
        ));
    }
    for push in &role.push {
        out.push(format!("push \"{push}\""));
    }
    if let Some(persist) = &role.pool_persist {
        let file = persist.file.display();
        out.push(match persist.every {
            Some(_) => format!("remember the addresses of clients in {file}"),
            None => format!("keep the addresses in {file} for the clients named there"),
        });
    }
    let between = if role.client_to_client {
        "pass packets between clients directly"
    } else {
        "leave packets between clients to the system's firewall"
    };
    out.push(between.to_owned());
    let twice = if role.duplicate_cn { ", several with one certificate" } else { "" };
    out.push(format!("accept at most {} clients{twice}", role.max_clients));
}

fn process(process: &Process, out: &mut Vec<String>) {
    if let Some((file, every)) = &process.status_file {
        out.push(format!("write the status to {} every {} s", file.display(), every.as_secs()));
    }
    if let Some(management) = &process.management {
        let place = match &management.listen {
            ManagementAddress::Tcp(address) => format!("TCP {address}"),
            ManagementAddress::Unix(path) => format!("the socket {}", path.display()),
        };
        let hold = if management.hold { ", which has to release the hold first" } else { "" };
        out.push(format!("serve a management program on {place}{hold}"));
    }
}

fn socket(transport: &Transport) -> String {
    let port = if transport.port == 0 {
        "a UDP port chosen by the system".to_owned()
    } else {
        format!("UDP port {}", transport.port)
    };
    match transport.local {
        Some(address) => format!("{port} of {address}"),
        None => format!("{port} over {}", families(transport.family)),
    }
}

fn families(family: Option<bool>) -> &'static str {
    match family {
        None => "IPv4 and IPv6",
        Some(true) => "IPv6",
        Some(false) => "IPv4",
    }
}

fn wrapping(config: &Config) -> String {
    let wrap = &config.wrap;
    let kinds = [
        (wrap.tls_auth.is_some(), "tls-auth"),
        (wrap.tls_crypt.is_some(), "tls-crypt"),
        (wrap.v2_server.is_some() || wrap.v2_client.is_some(), "tls-crypt-v2"),
    ];
    let kinds: Vec<_> = kinds.iter().filter(|(used, _)| *used).map(|(_, name)| *name).collect();
    if kinds.is_empty() { "nothing but TLS".to_owned() } else { kinds.join(" or ") }
}

fn tls(config: &Config) -> String {
    let tls = &config.tls;
    let version = match (tls.only_tls12, tls.only_tls13) {
        (true, _) => "1.2",
        (_, true) => "1.3",
        (false, false) => "1.2 or 1.3",
    };
    let against = match (tls.ca.is_empty(), tls.fingerprints.is_empty()) {
        (_, true) => "`ca`",
        (true, false) => "`peer-fingerprint`",
        (false, false) => "`ca` and `peer-fingerprint`",
    };
    let mut text =
        format!("speak TLS {version} and check the peer's certificate against {against}");
    for (asked, what) in [
        (tls.require_usage, ", its purpose"),
        (tls.verify_name.is_some(), ", its name"),
        (tls.crl.is_some(), ", the revocation list"),
    ] {
        if asked {
            text.push_str(what);
        }
    }
    text
}

fn timers(timers: &Timers, out: &mut Vec<String>) {
    if let Some(ping) = timers.ping {
        out.push(format!("send a ping after {} s of silence", ping.as_secs()));
    }
    if let Some(silence) = timers.ping_restart {
        out.push(format!("give a peer up after {} s without a packet", silence.as_secs()));
    }
    if let Some((ping, restart)) = timers.push_keepalive {
        out.push(format!("push \"ping {ping}\" and \"ping-restart {restart}\""));
    }
    match timers.reneg {
        (most, _) if most.is_zero() => out.push("leave the renewal of keys to the peer".to_owned()),
        (most, _) => out.push(format!("renew keys after at most {} s", most.as_secs())),
    }
}
