//! What a server pushed, filtered and typed: PUSH_REPLY text becomes [`Pushed`] [7.2, 7.3].
//!
//! The parts of a continued message are collected here too. An option we do not know or cannot use
//! is kept for the log and harms nothing, as with stock clients; an option we need and cannot read
//! fails the connection. What the tunnel options come to is decided in `settings`.

use core::fmt;
use core::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::config::directive::{self, PUSHED, Status};
use crate::config::option::TunnelOption;
use crate::config::{CipherName, ClientRole, FilterAction, Framing, lex};
use crate::limits::{MAX_CREDENTIAL, MAX_PUSHED_OPTIONS, MAX_PUSHED_ROUTES, NO_PEER_ID};
use crate::wire::message::{Continuation, Options};

/// Why a push cannot be used; the text is for the user's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PushError(pub(super) String);

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Options of a push that may come in several messages.
#[derive(Debug, Default)]
pub(super) struct Collector(Vec<String>);

impl Collector {
    /// Takes one message's options; true when the push is complete.
    pub(super) fn add(&mut self, part: Options) -> Result<bool, PushError> {
        if self.0.len() + part.options.len() > MAX_PUSHED_OPTIONS {
            let limit = MAX_PUSHED_OPTIONS;
            return Err(PushError(format!("the server pushes more than {limit} options")));
        }
        self.0.extend(part.options);
        Ok(part.continuation != Continuation::More)
    }

    /// Hands over what was collected.
    pub(super) fn take(&mut self) -> Vec<String> {
        core::mem::take(&mut self.0)
    }
}

/// A checked push.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    /// About addresses and routes, in order.
    pub(super) options: Vec<TunnelOption>,
    /// `cipher`, when pushed.
    pub(super) cipher: Option<CipherName>,
    /// `compress` or `comp-lzo`, when pushed.
    pub(super) framing: Option<Framing>,
    /// `peer-id`, when pushed and not "none".
    pub(super) peer: Option<u32>,
    /// `protocol-flags` and `key-derivation`.
    pub(super) flags: Flags,
    /// `ping` and the like.
    pub(super) keepalive: Keepalive,
    /// `explicit-exit-notify`.
    pub(super) exit_notify: Option<u8>,
    /// `auth-token`: stands in for the password from now on.
    pub(super) token: Option<Zeroizing<String>>,
    /// `auth-token-user`: goes with it.
    pub(super) token_user: Option<String>,
    /// `setenv-safe`: variables for scripts.
    pub(super) variables: Vec<(String, String)>,
    /// Options without effect here, for the log.
    pub(super) unused: Vec<String>,
}

/// Silence and what follows from it; zero is never, `None` leaves the configured value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Keepalive {
    /// `ping`.
    pub(super) ping: Option<Duration>,
    /// `ping-restart` or `ping-exit`.
    pub(super) silence: Option<Duration>,
    /// It was `ping-exit`.
    pub(super) exit: bool,
}

/// Protocol features the server chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Leave by a control message.
    pub(super) cc_exit: bool,
    /// Data keys from the TLS exporter.
    pub(super) exporter: bool,
    /// A fresh control wrapping for renegotiations.
    pub(super) dynamic_tls_crypt: bool,
    /// The epoch data format.
    pub(super) epoch: bool,
}

/// What `pull-filter` says about an option.
pub(super) fn filter(role: &ClientRole, option: &str) -> FilterAction {
    let matching = role.filters.iter().find(|(_, text)| option.starts_with(text.as_str()));
    matching.map_or(FilterAction::Accept, |(action, _)| *action)
}

/// The words of an option.
pub(super) fn words(option: &str) -> Result<Vec<String>, PushError> {
    lex::split(option)
        .map_err(|reason| PushError(format!("pushed option '{}': {reason}", option.escape_debug())))
}

/// An option whose argument is unusable.
pub(super) fn bad(option: &str) -> PushError {
    PushError(format!("the server pushes an unusable '{}'", option.escape_debug()))
}

/// A filter of the configuration does not want this server.
pub(super) fn rejected(option: &str) -> PushError {
    PushError(format!("pull-filter rejects the pushed '{}'", option.escape_debug()))
}

impl Pushed {
    /// Reads the options of a complete reply.
    pub(super) fn parse(options: &[String], role: &ClientRole) -> Result<Self, PushError> {
        let mut pushed = Self::default();
        for option in options {
            let option = option.trim_start();
            match filter(role, option) {
                FilterAction::Accept => {}
                FilterAction::Ignore => {
                    log::debug!("pull-filter ignores the pushed '{}'", option.escape_debug());
                    continue;
                }
                FilterAction::Reject => return Err(rejected(option)),
            }
            let words = words(option)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            pushed.take(option, &words, role.no_pull)?;
        }
        Ok(pushed)
    }

    fn take(&mut self, option: &str, words: &[&str], no_pull: bool) -> Result<(), PushError> {
        match words {
            ["cipher", name] => {
                let cipher = CipherName::from_name(name);
                self.cipher = Some(cipher.ok_or_else(|| unsupported_cipher(name))?);
            }
            ["comp-lzo" | "compress", ..] => {
                self.framing = Some(Framing::from_words(words).ok_or_else(|| bad(option))?);
            }
            ["peer-id", id] => {
                let id: i64 = id.parse().map_err(|_| bad(option))?;
                self.peer = u32::try_from(id).ok().filter(|id| *id < NO_PEER_ID);
            }
            ["key-derivation", "tls-ekm"] => self.flags.exporter = true,
            ["protocol-flags", words @ ..] => self.protocol_flags(words)?,
            ["ping" | "ping-restart" | "ping-exit" | "keepalive", ..] => {
                if !self.keepalive.take(words) {
                    self.unused.push(option.to_owned());
                }
            }
            ["explicit-exit-notify"] => self.exit_notify = Some(1),
            ["explicit-exit-notify", count] => self.exit_notify = count.parse().ok(),
            ["auth-token", token] if !token.is_empty() && token.len() < MAX_CREDENTIAL => {
                self.token = Some(Zeroizing::new((*token).to_owned()));
            }
            ["auth-token-user", user] => {
                let name = BASE64_STANDARD.decode(user).ok();
                self.token_user = name.and_then(|name| String::from_utf8(name).ok());
            }
            // Never into a log.
            ["auth-token", ..] => self.unused.push("auth-token".to_owned()),
            _ => self.tunnel_option(option, words, no_pull)?,
        }
        Ok(())
    }

    fn tunnel_option(
        &mut self,
        option: &str,
        words: &[&str],
        no_pull: bool,
    ) -> Result<(), PushError> {
        match TunnelOption::parse(words) {
            Ok(Some(parsed)) if no_pull && parsed.is_routing() => {
                log::debug!("route-nopull: left out '{}'", option.escape_debug());
            }
            Ok(Some(parsed)) if self.options.len() < MAX_PUSHED_ROUTES => self.options.push(parsed),
            Ok(Some(_)) => self.unused.push(option.to_owned()),
            Ok(None) if matches!(words, ["setenv-safe", _] | ["setenv-safe", _, _]) => {
                let (name, value) = (words.get(1), words.get(2).copied().unwrap_or_default());
                self.variables
                    .extend(name.map(|name| (format!("OPENVPN_{name}"), value.to_owned())));
            }
            Ok(None) => match words.first().and_then(|name| directive::find(name)) {
                Some(row) if row.places.contains(PUSHED) && is_harmless(row.status) => {}
                Some(_) | None => self.unused.push(option.to_owned()),
            },
            // The tunnel cannot work without these; a route less is only a route less.
            Err(_) => match words.first() {
                Some(&("ifconfig" | "ifconfig-ipv6" | "topology" | "tun-mtu")) => {
                    return Err(bad(option));
                }
                Some(_) | None => self.unused.push(option.to_owned()),
            },
        }
        Ok(())
    }

    /// An unknown word changes the wire format in a way we do not know: going on would only fail
    /// later and without a reason.
    fn protocol_flags(&mut self, words: &[&str]) -> Result<(), PushError> {
        for word in words {
            match *word {
                "cc-exit" => self.flags.cc_exit = true,
                "tls-ekm" => self.flags.exporter = true,
                "dyn-tls-crypt" => self.flags.dynamic_tls_crypt = true,
                "aead-epoch" => self.flags.epoch = true,
                other => {
                    return Err(PushError(format!(
                        "the server wants the unknown protocol flag '{}'",
                        other.escape_debug()
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Keepalive {
    /// Takes one of the ping directives; false when it is unusable.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let seconds = |text: &str| text.parse().ok().map(Duration::from_secs);
        match words {
            ["ping", ping] => self.ping = seconds(ping).or(self.ping),
            ["ping-restart", silence] => {
                (self.silence, self.exit) = (seconds(silence).or(self.silence), false);
            }
            ["ping-exit", silence] => {
                (self.silence, self.exit) = (seconds(silence).or(self.silence), true);
            }
            ["keepalive", ping, silence] => {
                self.ping = seconds(ping).or(self.ping);
                (self.silence, self.exit) = (seconds(silence).or(self.silence), false);
            }
            _ => return false,
        }
        true
    }
}

/// Whether there is a reason why nothing needs doing, so that nobody need be told at each connection.
const fn is_harmless(status: Status) -> bool {
    match status {
        Status::Done | Status::Ignored(_) => true,
        Status::Refused(_) => false,
    }
}

/// The server insists on a cipher that we do not have.
pub(super) fn unsupported_cipher(name: &str) -> PushError {
    PushError(format!(
        "the server wants data cipher '{}', which is not supported here: set data-ciphers on the server to \
         include AES-256-GCM or CHACHA20-POLY1305",
        name.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Message;

    fn parse_with(reply: &str, role: &ClientRole) -> Result<Pushed, PushError> {
        let Message::PushReply(options) = Message::parse(reply) else { panic!("{reply}") };
        Pushed::parse(&options.options, role)
    }

    fn parse(reply: &str) -> Result<Pushed, PushError> {
        parse_with(reply, &ClientRole::default())
    }

    #[test]
    fn the_typical_dual_stack_reply_of_a_2_6_server() {
        let pushed = parse(
            "PUSH_REPLY,route-gateway 10.8.0.1,topology subnet,ping 10,ping-restart 60,tun-ipv6,\
             ifconfig-ipv6 2001:db8::1000/64 2001:db8::1,ifconfig 10.8.0.2 255.255.255.0,peer-id 0,\
             cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt,tun-mtu 1400",
        )
        .unwrap();
        assert_eq!(pushed.options.len(), 5);
        assert_eq!((pushed.peer, pushed.cipher), (Some(0), Some(CipherName::Aes256Gcm)));
        assert_eq!(pushed.keepalive.ping, Some(Duration::from_secs(10)));
        assert_eq!(pushed.keepalive.silence, Some(Duration::from_secs(60)));
        let all = Flags { cc_exit: true, exporter: true, dynamic_tls_crypt: true, epoch: false };
        assert_eq!(pushed.flags, all);
        assert!(pushed.unused.is_empty(), "{:?}", pushed.unused);
        // The exporter in its other spelling; an IPv6 gateway is known and has no effect.
        assert!(parse("PUSH_REPLY,key-derivation tls-ekm").unwrap().flags.exporter);
        let gateway = parse("PUSH_REPLY,route-ipv6-gateway fd00::1").unwrap();
        assert_eq!((gateway.options.len(), gateway.unused.len()), (1, 0));
    }

    #[test]
    fn tokens_are_taken_and_never_shown() {
        let pushed =
            parse("PUSH_REPLY,auth-token SESS_ID_AT_secret,auth-token-user YWxpY2U=").unwrap();
        assert_eq!(pushed.token.as_ref().unwrap().as_str(), "SESS_ID_AT_secret");
        assert_eq!(pushed.token_user.as_deref(), Some("alice"));
        let long = parse(&format!("PUSH_REPLY,auth-token {}", "x".repeat(200))).unwrap();
        assert_eq!((long.token, long.unused), (None, vec!["auth-token".to_owned()]));
    }

    #[test]
    fn the_first_matching_filter_decides() {
        let filter = |action, text: &str| (action, text.to_owned());
        let role = ClientRole {
            filters: vec![
                filter(FilterAction::Accept, "route 10."),
                filter(FilterAction::Ignore, "route "),
                filter(FilterAction::Reject, "redirect-gateway"),
            ],
            ..ClientRole::default()
        };
        let pushed =
            parse_with("PUSH_REPLY,route 10.1.0.1,route 172.16.0.1,ping 5", &role).unwrap();
        assert_eq!((pushed.options.len(), pushed.unused.len()), (1, 0));
        let error = parse_with("PUSH_REPLY,redirect-gateway def1", &role).unwrap_err();
        assert!(error.0.contains("pull-filter"), "{error}");
    }

    #[test]
    fn route_nopull_keeps_routes_and_dns_out_and_addresses_in() {
        let role = ClientRole { no_pull: true, ..ClientRole::default() };
        let reply = "PUSH_REPLY,route 10.1.0.0,route-metric 9,redirect-gateway def1,dhcp-option DNS 10.8.0.1,\
             dns search-domains example.org,block-ipv6,route-ipv6 fd00::/8,ifconfig 10.8.0.6 10.8.0.5";
        let names: Vec<_> =
            parse_with(reply, &role).unwrap().options.iter().map(TunnelOption::name).collect();
        assert_eq!(names, ["ifconfig"]);
    }

    #[test]
    fn what_cannot_work_fails_with_a_reason() {
        for (reply, reason) in [
            ("PUSH_REPLY,ifconfig 10.8.0.2", "unusable 'ifconfig"),
            ("PUSH_REPLY,ifconfig x y", "unusable 'ifconfig"),
            ("PUSH_REPLY,ifconfig-ipv6 x y", "unusable 'ifconfig-ipv6"),
            ("PUSH_REPLY,topology star", "unusable 'topology"),
            ("PUSH_REPLY,ifconfig 10.8.0.6 10.8.0.5,cipher BF-CBC", "'BF-CBC', which is"),
            ("PUSH_REPLY,ifconfig 10.8.0.6 10.8.0.5,cipher BF-CBC", "include AES-256-GCM"),
            ("PUSH_REPLY,ifconfig 10.8.0.6 10.8.0.5,protocol-flags warp", "warp"),
            ("PUSH_REPLY,ifconfig 10.8.0.6 10.8.0.5,echo \"open", "echo"),
        ] {
            let error = parse(reply).unwrap_err().0;
            assert!(error.contains(reason), "{reply}: {error}");
        }
    }

    #[test]
    fn options_without_use_are_named_unless_that_is_known_to_be_no_loss() {
        let pushed = parse(
            "PUSH_REPLY,persist-key,sndbuf 0,register-dns,verb 3,route bogus,frobnicate 1,\
             redirect-gateway sideways",
        )
        .unwrap();
        assert_eq!(pushed.unused, ["route bogus", "frobnicate 1", "redirect-gateway sideways"]);
    }

    #[test]
    fn the_last_word_on_silence_counts() {
        let keepalive = |reply| parse(reply).unwrap().keepalive;
        assert!(keepalive("PUSH_REPLY,ping-restart 60,ping-exit 30").exit);
        let last = keepalive("PUSH_REPLY,ping-exit 30,ping-restart 0");
        assert_eq!((last.silence, last.exit), (Some(Duration::ZERO), false));
        assert_eq!(keepalive("PUSH_REPLY,ping soon").ping, None);
    }

    #[test]
    fn a_continued_reply_is_complete_with_its_last_part() {
        let part = |text| match Message::parse(text) {
            Message::PushReply(options) => options,
            other => panic!("{other:?}"),
        };
        let mut collector = Collector::default();
        assert!(!collector.add(part("PUSH_REPLY,route 10.1.0.0,push-continuation 2")).unwrap());
        assert!(collector.add(part("PUSH_REPLY,route 10.2.0.0,push-continuation 1")).unwrap());
        assert_eq!(collector.take(), ["route 10.1.0.0", "route 10.2.0.0"]);
        let flood = format!("PUSH_REPLY{}", ",x".repeat(MAX_PUSHED_OPTIONS + 1));
        assert!(collector.add(part(&flood)).is_err());
    }
}
