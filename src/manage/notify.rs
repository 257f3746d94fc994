//! What the management client is told without asking: log lines, states, clients that come and go,
//! bytes [9.14].
//!
//! OpenVPN reports a client's addresses and its end only to programs that also decide who comes in
//! (`management-client-auth`); here everybody who listens is told.

use core::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::console::Console;
use super::session::Session;
use super::{Addresses, TunnelState, View, plain};
use crate::engine::ClientInfo;
use crate::time::UnixTime;

impl Console {
    /// A line was logged.
    pub fn log_line(&mut self, time: UnixTime, level: log::Level, text: &str) {
        let flag = match level {
            log::Level::Error => 'N',
            log::Level::Warn => 'W',
            log::Level::Info => 'I',
            log::Level::Debug | log::Level::Trace => 'D',
        };
        let entry = format!("{},{flag},{}", time.0, plain(text, None));
        if let Some(session) = self.session.as_mut().filter(|session| session.log) {
            session.notify(&format!(">LOG:{entry}"));
        }
        self.log.push(entry);
    }

    /// The tunnel has got so far. `remote` and `local` are the transport's ends, when known.
    pub fn state(
        &mut self,
        time: UnixTime,
        state: TunnelState,
        detail: &str,
        own: Addresses,
        [remote, local]: [Option<SocketAddr>; 2],
    ) {
        let end = |end: Option<SocketAddr>| match end {
            Some(end) => format!("{},{}", end.ip(), end.port()),
            None => ",".to_owned(),
        };
        let mut entry = format!(
            "{},{},{},{},{},{}",
            time.0,
            state.as_str(),
            plain(detail, Some(',')),
            own.v4.map_or_else(String::new, |v4| v4.to_string()),
            end(remote),
            end(local)
        );
        if let Some(v6) = own.v6 {
            // Writing to a String cannot fail.
            let _ = write!(entry, ",{v6}");
        }
        if let Some(session) = self.session.as_mut().filter(|session| session.state) {
            session.notify(&format!(">STATE:{entry}"));
        }
        self.states.push(entry);
    }

    /// A client came in; `count` are there now.
    pub fn client_up(&mut self, client: &ClientInfo, count: usize) {
        let Some(session) = &mut self.session else { return };
        let mut text =
            format!(">CLIENT:ESTABLISHED,{}\n>CLIENT:ENV,n_clients={count}\n", client.id);
        environment(&mut text, client);
        for (address, primary) in [(client.v4.map(IpAddr::V4), 1), (client.v6.map(IpAddr::V6), 1)] {
            if let Some(address) = address {
                let _ = writeln!(text, ">CLIENT:ADDRESS,{},{address},{primary}", client.id);
            }
        }
        for address in &client.also {
            let _ = writeln!(text, ">CLIENT:ADDRESS,{},{address},0", client.id);
        }
        for net in &client.networks {
            let _ = writeln!(text, ">CLIENT:ADDRESS,{},{net},0", client.id);
        }
        session.notify(&text);
    }

    /// A client is gone.
    pub fn client_down(&mut self, now: UnixTime, client: &ClientInfo) {
        self.settled(client.id);
        let Some(session) = &mut self.session else { return };
        session.counted.retain(|(id, _, _)| *id != client.id);
        let mut text = format!(
            ">CLIENT:DISCONNECT,{}\n>CLIENT:ENV,bytes_received={}\n>CLIENT:ENV,bytes_sent={}\n\
             >CLIENT:ENV,time_duration={}\n",
            client.id,
            client.bytes_in,
            client.bytes_out,
            now.0.saturating_sub(client.since)
        );
        environment(&mut text, client);
        session.notify(&text);
    }

    /// The program ends because of this.
    pub fn fatal(&mut self, text: &str) {
        if let Some(session) = &mut self.session {
            session.notify(&format!(">FATAL:{}", plain(text, None)));
        }
    }
}

/// A client's environment as far as it is known, under OpenVPN's names, and its end.
fn environment(text: &mut String, client: &ClientInfo) {
    let (ip, port) = (client.from.peer.ip(), client.from.peer.port().to_string());
    let address = ip.to_string();
    let [trusted, untrusted] = match ip {
        IpAddr::V4(_) => ["trusted_ip", "untrusted_ip"],
        IpAddr::V6(_) => ["trusted_ip6", "untrusted_ip6"],
    };
    let v4 = client.v4.map_or_else(String::new, |v4| v4.to_string());
    let v6 = client.v6.map_or_else(String::new, |v6| v6.to_string());
    let since = client.since.to_string();
    let variables = [
        ("common_name", client.common_name.as_str()),
        ("username", &client.username),
        (trusted, &address),
        ("trusted_port", &port),
        (untrusted, &address),
        ("untrusted_port", &port),
        ("ifconfig_pool_remote_ip", &v4),
        ("ifconfig_pool_remote_ip6", &v6),
        ("IV_VER", &client.version),
        ("IV_PLAT", &client.platform),
        ("time_unix", &since),
    ];
    for (name, value) in variables.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, ">CLIENT:ENV,{name}={}", plain(value, None));
    }
    text.push_str(">CLIENT:ENV,END\n");
}

/// The report that `bytecount` orders: of the tunnel, or of each client that has had traffic.
pub(super) fn bytes(session: &mut Session, server: bool, view: &View) {
    if !server {
        let traffic = view.traffic;
        session.notify(&format!(">BYTECOUNT:{},{}", traffic.link_in, traffic.link_out));
        return;
    }
    let mut text = String::new();
    for client in &view.clients {
        let count = (client.id, client.bytes_in, client.bytes_out);
        if !session.counted.contains(&count) {
            let _ = writeln!(text, ">BYTECOUNT_CLI:{},{},{}", count.0, count.1, count.2);
        }
    }
    session.counted =
        view.clients.iter().map(|client| (client.id, client.bytes_in, client.bytes_out)).collect();
    session.notify(&text);
}
