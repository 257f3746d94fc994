//! The status as OpenVPN 2.6 prints it, in formats 1, 2 and 3 [9.13].
//!
//! ```text
//! 1   OpenVPN CLIENT LIST ... ROUTING TABLE ... GLOBAL STATS ... END      fields between commas
//! 2   TITLE,... HEADER,CLIENT_LIST,... CLIENT_LIST,...  ... END          fields between commas
//! 3   the same, fields between tabs
//! ```
//!
//! A name with a comma, a tab or a control character would break the line, so `_` stands in for
//! each. Addresses are those of 2.6: IPv4 with the port, IPv6 without. Bytes are those of the
//! tunnel's packets; stock servers count the encrypted ones.

use core::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use super::{TITLE, View, plain};
use crate::engine::ClientInfo;
use crate::time::UnixTime;

/// One of the formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The oldest, and what stock servers write unless told otherwise.
    #[default]
    V1,
    /// Every line says what it is; commas.
    V2,
    /// The same with tabs.
    V3,
}

impl Format {
    /// The format of this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            _ => None,
        }
    }
}

/// A server's status; every line ends in LF.
pub fn server(view: &View, format: Format) -> String {
    let mut text = String::with_capacity(512 + 256 * view.clients.len());
    match format {
        Format::V1 => old(&mut text, view),
        Format::V2 => tagged(&mut text, view, ','),
        Format::V3 => tagged(&mut text, view, '\t'),
    }
    text
}

/// A client's status, which has one format only.
pub fn client(view: &View) -> String {
    let traffic = view.traffic;
    format!(
        "OpenVPN STATISTICS\nUpdated,{}\nTUN/TAP read bytes,{}\nTUN/TAP write bytes,{}\n\
         TCP/UDP read bytes,{}\nTCP/UDP write bytes,{}\nAuth read bytes,{}\nEND\n",
        (view.date)(view.now),
        traffic.tun_in,
        traffic.tun_out,
        traffic.link_in,
        traffic.link_out,
        // Of what was read, what was authentic reached the device.
        traffic.tun_out,
    )
}

/// Writes the fields of one line. Writing to a String cannot fail.
fn line(text: &mut String, separator: char, fields: &[&dyn fmt::Display]) {
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            text.push(separator);
        }
        let _ = write!(text, "{field}");
    }
    text.push('\n');
}

fn old(text: &mut String, view: &View) {
    let date = |seconds| (view.date)(UnixTime(seconds));
    line(text, ',', &[&"OpenVPN CLIENT LIST"]);
    line(text, ',', &[&"Updated", &(view.date)(view.now)]);
    text.push_str("Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since\n");
    for c in &view.clients {
        let (name, real) = (name(&c.common_name, ','), real_address(c));
        line(text, ',', &[&name, &real, &c.bytes_in, &c.bytes_out, &date(c.since)]);
    }
    text.push_str("ROUTING TABLE\nVirtual Address,Common Name,Real Address,Last Ref\n");
    for c in &view.clients {
        for prefix in prefixes(c) {
            let (name, real) = (name(&c.common_name, ','), real_address(c));
            line(text, ',', &[&prefix, &name, &real, &date(c.since)]);
        }
    }
    text.push_str("GLOBAL STATS\nMax bcast/mcast queue length,0\nEND\n");
}

fn tagged(text: &mut String, view: &View, sep: char) {
    let date = |seconds| (view.date)(UnixTime(seconds));
    line(text, sep, &[&"TITLE", &TITLE]);
    line(text, sep, &[&"TIME", &(view.date)(view.now), &view.now.0]);
    header(
        text,
        sep,
        "CLIENT_LIST,Common Name,Real Address,Virtual Address,Virtual IPv6 Address,Bytes Received,\
         Bytes Sent,Connected Since,Connected Since (time_t),Username,Client ID,Peer ID,\
         Data Channel Cipher",
    );
    for c in &view.clients {
        let v4 = c.v4.map_or_else(String::new, |v4| v4.to_string());
        let v6 = c.v6.map_or_else(String::new, |v6| v6.to_string());
        let fields: [&dyn fmt::Display; 13] = [
            &"CLIENT_LIST",
            &name(&c.common_name, sep),
            &real_address(c),
            &v4,
            &v6,
            &c.bytes_in,
            &c.bytes_out,
            &date(c.since),
            &c.since,
            &name(&c.username, sep),
            &c.id,
            &c.peer,
            &c.cipher,
        ];
        line(text, sep, &fields);
    }
    let columns =
        "ROUTING_TABLE,Virtual Address,Common Name,Real Address,Last Ref,Last Ref (time_t)";
    header(text, sep, columns);
    for c in &view.clients {
        for prefix in prefixes(c) {
            let (name, real) = (name(&c.common_name, sep), real_address(c));
            let since = date(c.since);
            line(text, sep, &[&"ROUTING_TABLE", &prefix, &name, &real, &since, &c.since]);
        }
    }
    line(text, sep, &[&"GLOBAL_STATS", &"Max bcast/mcast queue length", &0]);
    line(text, sep, &[&"GLOBAL_STATS", &"dco_enabled", &0]);
    text.push_str("END\n");
}

fn header(text: &mut String, sep: char, columns: &str) {
    text.push_str("HEADER");
    text.push(sep);
    text.extend(columns.chars().map(|c| if c == ',' { sep } else { c }));
    text.push('\n');
}

/// A name as a field; `UNDEF` when there is none.
fn name(text: &str, sep: char) -> String {
    if text.is_empty() { "UNDEF".to_owned() } else { plain(text, Some(sep)) }
}

/// The transport address as 2.6 shows it.
pub(super) fn real_address(client: &ClientInfo) -> String {
    match client.from.peer {
        SocketAddr::V4(v4) => v4.to_string(),
        SocketAddr::V6(v6) => v6.ip().to_string(),
    }
}

/// A client's own addresses, then the networks behind it.
fn prefixes(client: &ClientInfo) -> impl Iterator<Item = String> {
    let own = [client.v4.map(IpAddr::V4), client.v6.map(IpAddr::V6)];
    let own = own.into_iter().flatten().chain(client.also.iter().copied().map(IpAddr::V6));
    let own = own.map(|address| address.to_string());
    own.chain(client.networks.iter().map(|net| net.to_string()))
}
