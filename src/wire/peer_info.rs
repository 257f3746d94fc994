//! Peer info: what the other program says about itself in key method 2 [5.3].
//!
//! ```text
//! IV_VER=2.6.12\n
//! IV_PROTO=990\n
//! IV_CIPHERS=AES-256-GCM:CHACHA20-POLY1305\n
//! ```
//!
//! All of it is hostile: lookups are exact and numbers are bounded; text for logs and scripts comes
//! out only with its dangerous characters replaced.

use core::fmt;

/// Sixgate's own key: 1 if the client has an interface for a delegated prefix.
pub const WANTS_PREFIX: &str = "IV_SIXGATE_PREFIX";
/// Sixgate's own key: 1 if the client's processor has instructions for AES, 0 if not.
pub const HAS_AES: &str = "IV_SIXGATE_AES";

/// What the peer can do: the bits of IV_PROTO.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct IvProto(pub u32);

impl IvProto {
    /// Receives and sends data packets with a peer id.
    pub const DATA_V2: Self = Self(1 << 1);
    /// Wants its PUSH_REPLY without asking for it.
    pub const REQUEST_PUSH: Self = Self(1 << 2);
    /// Derives data keys by the TLS exporter.
    pub const TLS_KEY_EXPORT: Self = Self(1 << 3);
    /// Understands keywords in AUTH_PENDING.
    pub const AUTH_PENDING_KEYWORDS: Self = Self(1 << 4);
    /// Negotiates as equals; from a client it means a forgotten `pull`.
    pub const NCP_P2P: Self = Self(1 << 5);
    /// Early form of the `dns` option; incomplete.
    pub const DNS_OPTION: Self = Self(1 << 6);
    /// Understands EXIT as a control message, and the option `protocol-flags`.
    pub const CC_EXIT_NOTIFY: Self = Self(1 << 7);
    /// Understands `AUTH_FAILED,TEMP`.
    pub const AUTH_FAIL_TEMP: Self = Self(1 << 8);
    /// Can use dynamic tls-crypt keys.
    pub const DYN_TLS_CRYPT: Self = Self(1 << 9);
    /// Can use epoch data keys.
    pub const DATA_EPOCH: Self = Self(1 << 10);
    /// Final form of the `dns` option.
    pub const DNS_OPTION_V2: Self = Self(1 << 11);
    /// Understands PUSH_UPDATE.
    pub const PUSH_UPDATE: Self = Self(1 << 12);

    /// Whether all bits of `other` are set. Other bits say nothing: none implies another.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for IvProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IvProto({:#x})", self.0)
    }
}

/// A view of peer info text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo<'a>(&'a str);

impl<'a> PeerInfo<'a> {
    /// Longest line that reaches logs and scripts, in bytes.
    const MAX_LINE: usize = 255;

    /// Any text is peer info; lines that are not `KEY=value` are skipped.
    pub const fn new(text: &'a str) -> Self {
        Self(text)
    }

    fn lines(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.lines().filter_map(|line| line.split_once('='))
    }

    /// The value as the peer sent it, in the first line that has exactly this key. Raw: for
    /// comparing only.
    pub fn lookup(self, key: &str) -> Option<&'a str> {
        self.lines().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The value cut to size and made harmless, for logs and status.
    pub fn text(self, key: &str) -> Option<String> {
        self.lookup(key).map(|value| sanitise(value, Self::MAX_LINE.saturating_sub(key.len() + 1)))
    }

    /// The variables that scripts may see: keys of letters, digits and `_` that start with `IV_` or
    /// `UV_`, with harmless values, in the peer's order.
    pub fn exported(self) -> impl Iterator<Item = (&'a str, String)> {
        self.lines().filter(|(key, _)| exportable(key)).filter_map(|(key, value)| {
            let room = Self::MAX_LINE.checked_sub(key.len() + 1)?;
            Some((key, sanitise(value, room)))
        })
    }

    /// IV_PROTO; nothing at all when it is missing or no number.
    pub fn proto(self) -> IvProto {
        IvProto(self.number("IV_PROTO").unwrap_or(0))
    }

    /// IV_NCP; 2 or more means AES-128-GCM and AES-256-GCM can be pushed [8.1].
    pub fn ncp(self) -> u32 {
        self.number("IV_NCP").unwrap_or(0)
    }

    /// IV_MTU, the largest TUN MTU the peer can take; its presence means `tun-mtu` can be pushed.
    pub fn mtu(self) -> Option<u32> {
        self.number("IV_MTU")
    }

    /// The data ciphers of IV_CIPHERS in the peer's order; `None` when the peer did not say.
    pub fn ciphers(self) -> Option<impl Iterator<Item = &'a str>> {
        self.lookup("IV_CIPHERS").map(|list| list.split(':').filter(|name| !name.is_empty()))
    }

    /// IV_VER, for logs only: nothing may be inferred from it.
    pub fn version(self) -> Option<String> {
        self.text("IV_VER")
    }

    /// IV_PLAT: `linux`, `win`, `mac`, …
    pub fn platform(self) -> Option<String> {
        self.text("IV_PLAT")
    }

    fn number(self, key: &str) -> Option<u32> {
        self.lookup(key)?.trim().parse().ok()
    }
}

fn exportable(key: &str) -> bool {
    let known = key.starts_with("IV_") || key.starts_with("UV_");
    known && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Replaces what a shell or a terminal could take for something else, as the reference does. What
/// is not ASCII counts as not printable.
fn sanitise(value: &str, room: usize) -> String {
    let harmless = |c: char| c.is_ascii_graphic() && !matches!(c, '$' | '(' | '`');
    value.chars().take(room).map(|c| if harmless(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_client() {
        let info = PeerInfo::new(
            "IV_VER=2.6.12\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n\
             IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\nIV_PROTO=990\n",
        );
        assert_eq!(info.version().as_deref(), Some("2.6.12"));
        assert_eq!(info.platform().as_deref(), Some("linux"));
        assert_eq!((info.mtu(), info.ncp()), (Some(1600), 2));
        let ciphers: Vec<_> = info.ciphers().unwrap().collect();
        assert_eq!(ciphers, ["AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"]);
        let proto = info.proto();
        assert_eq!(proto, IvProto(990));
        let bits = IvProto::DATA_V2.with(IvProto::REQUEST_PUSH).with(IvProto::TLS_KEY_EXPORT);
        let bits = bits.with(IvProto::AUTH_PENDING_KEYWORDS).with(IvProto::DNS_OPTION);
        let bits = bits.with(IvProto::CC_EXIT_NOTIFY).with(IvProto::AUTH_FAIL_TEMP);
        assert_eq!(bits.with(IvProto::DYN_TLS_CRYPT), proto);
        assert!(proto.has(bits) && !proto.has(IvProto::NCP_P2P) && !proto.has(IvProto::DATA_EPOCH));
    }

    #[test]
    fn nothing_said_is_nothing_assumed() {
        let info = PeerInfo::new("");
        assert_eq!((info.proto(), info.ncp(), info.mtu()), (IvProto(0), 0, None));
        assert!(info.ciphers().is_none() && info.version().is_none());
        assert_eq!(PeerInfo::new("IV_CIPHERS=").ciphers().unwrap().count(), 0);
    }

    #[test]
    fn the_first_line_with_exactly_the_key_wins() {
        let info = PeerInfo::new(
            "UV_IV_PROTO=1\r\nIV_PROTOX=1\nIV_PROTO\nIV_PROTO=2\r\nIV_PROTO=4\nUV=a=b\n",
        );
        assert_eq!(info.proto(), IvProto(2));
        assert_eq!(info.lookup("UV"), Some("a=b"));
        assert_eq!(info.lookup("IV_"), None);
    }

    #[test]
    fn hostile_numbers_are_none() {
        for value in ["", "-1", "4294967296", "99999999999999999999", "0x10", "12abc", "１"] {
            let text = format!("IV_PROTO={value}\nIV_MTU={value}\n");
            let info = PeerInfo::new(&text);
            assert_eq!((info.proto(), info.mtu()), (IvProto(0), None), "{value}");
        }
    }

    #[test]
    fn hostile_text_is_defused() {
        let info = PeerInfo::new(
            "IV_VER=2 $(reboot)`x`\u{1b}[2J\u{7f}ü\nPATH=/tmp\nUV_A B=1\nUV_OK=y\nIV_PLAT=\tmac",
        );
        assert_eq!(info.version().as_deref(), Some("2___reboot)_x__[2J__"));
        let exported: Vec<_> = info.exported().map(|(key, _)| key).collect();
        assert_eq!(exported, ["IV_VER", "UV_OK", "IV_PLAT"]);
        assert_eq!(info.platform().as_deref(), Some("_mac"));
    }

    #[test]
    fn long_lines_are_cut() {
        let text = format!("UV_LONG={}\nIV_{}=x\nUV_SHORT=1", "v".repeat(5000), "K".repeat(5000));
        let exported: Vec<_> = PeerInfo::new(&text).exported().collect();
        assert_eq!(exported.len(), 2);
        assert_eq!(exported[0].0.len() + 1 + exported[0].1.len(), 255);
        assert_eq!(exported[1], ("UV_SHORT", "1".to_owned()));
    }
}
