//! The status as JSON (RFC 8259), for `sixgate status --json`.
//!
//! One object; member names and their order are part of the interface:
//!
//! ```json
//! {"version":"…","time":0,"pid":0,"offload":{"tun":"…","udp":"…"},"filter":"…","ipv4":"…"|null,"ipv6":"…"|null,
//!  "prefixes":["2001:db8::/64"],"certificates":{"server":0,"authority":0},"clients":[{"id":0,"name":"…","address":"[::1]:1194",
//!  "ipv4":"…"|null,"ipv6":"…"|null,"ipv6_also":["…"],"networks":["…"],"bytes_in":0,"bytes_out":0,"since":0,
//!  "last_seen":0,"certificate_expires":0|null,"username":"…"|null,"cipher":"…","peer_id":0,"peer_version":"…","platform":"…"}],
//!  "dropped":{"replay":0}}
//! ```
//!
//! Times are Unix seconds. `ipv4` and `ipv6` of the whole are our own addresses in the tunnel; of the
//! prefixes, clients use the first.

use core::fmt::{Display, Write as _};

use super::{Overview, View};
use crate::engine::ClientInfo;

/// The status.
pub fn status(view: &View, overview: &Overview<'_>) -> String {
    let mut text = String::with_capacity(512 + 448 * view.clients.len());
    let [tun, udp] = overview.offload;
    let prefixes: Vec<String> =
        overview.prefixes.iter().map(|net| string(&net.to_string())).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{{\"version\":{},\"time\":{},\"pid\":{},\"offload\":{{\"tun\":{},\"udp\":{}}},\"filter\":{},\"ipv4\":{},\
         \"ipv6\":{},\"prefixes\":[{}],\"certificates\":{{{}}},\"clients\":[",
        string(env!("CARGO_PKG_VERSION")),
        view.now.0,
        view.pid,
        string(tun),
        string(udp),
        string(overview.filter),
        optional(overview.own.v4),
        optional(overview.own.v6),
        prefixes.join(","),
        numbers(overview.certificates.iter().map(|(name, until)| (*name, until.0))),
    );
    let clients: Vec<String> = view.clients.iter().map(|c| client(view, c)).collect();
    text.push_str(&clients.join(","));
    text.push_str("],\"dropped\":{");
    text.push_str(&numbers(overview.dropped.iter().copied()));
    text.push_str("}}\n");
    text
}

/// The members of an object of numbers.
fn numbers(members: impl Iterator<Item = (&'static str, u64)>) -> String {
    let members: Vec<String> =
        members.map(|(name, number)| format!("{}:{number}", string(name))).collect();
    members.join(",")
}

fn client(view: &View, c: &ClientInfo) -> String {
    let networks: Vec<String> = c.networks.iter().map(|net| string(&net.to_string())).collect();
    let also: Vec<String> = c.also.iter().map(|address| string(&address.to_string())).collect();
    let username = (!c.username.is_empty()).then_some(&c.username);
    format!(
        "{{\"id\":{},\"name\":{},\"address\":{},\"ipv4\":{},\"ipv6\":{},\"ipv6_also\":[{}],\"networks\":[{}],\
         \"bytes_in\":{},\"bytes_out\":{},\"since\":{},\"last_seen\":{},\"certificate_expires\":{},\"username\":{},\"cipher\":{},\
         \"peer_id\":{},\"peer_version\":{},\"platform\":{}}}",
        c.id,
        string(&c.common_name),
        string(&c.from.peer.to_string()),
        optional(c.v4),
        optional(c.v6),
        also.join(","),
        networks.join(","),
        c.bytes_in,
        c.bytes_out,
        c.since,
        c.last_seen(view),
        c.expires.map_or_else(|| "null".to_owned(), |until| until.0.to_string()),
        optional(username),
        string(c.cipher),
        c.peer,
        string(&c.version),
        string(&c.platform),
    )
}

fn optional(value: Option<impl Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| string(&value.to_string()))
}

/// A string with its quotes. Beyond what JSON demands, all control characters are escaped.
fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            // Control characters lie below U+00A0: four digits are enough.
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        assert_eq!(string("a\"b\\c\n\u{85}é"), "\"a\\\"b\\\\c\\u000a\\u0085é\"");
    }
}
