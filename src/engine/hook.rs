//! Scripts as values: what an engine wants run, what it passes on, what came of it [9.12].
//!
//! Which program stands behind a [`HookKind`], its temporary files and its supervision are the
//! shell's business; what a result means is the engine's.

use core::fmt;

use zeroize::Zeroizing;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident => $directive:literal, $script_type:literal;)+) => {
        /// An occasion at which a script may be run.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum HookKind { $($(#[doc = $doc])+ $name,)+ }

        impl HookKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The directive that names the script.
            pub const fn directive(self) -> &'static str {
                match self { $(Self::$name => $directive,)+ }
            }

            /// The value of the variable `script_type`.
            pub const fn script_type(self) -> &'static str {
                match self { $(Self::$name => $script_type,)+ }
            }
        }
    };
}

kinds! {
    /// The device has its addresses.
    Up => "up", "up";
    /// The device is about to lose them.
    Down => "down", "down";
    /// Routes are set.
    RouteUp => "route-up", "route-up";
    /// Routes are about to be removed.
    RoutePreDown => "route-pre-down", "route-pre-down";
    /// DNS settings are there to be applied, the routes too.
    DnsUp => "dns-updown", "dns-up";
    /// DNS settings are to be taken back.
    DnsDown => "dns-updown", "dns-down";
    /// (Client) the server has proved who it is; this is where it is.
    IpChange => "ipchange", "ipchange";
    /// One certificate of a peer's chain: is the peer to be trusted?
    TlsVerify => "tls-verify", "tls-verify";
    /// The metadata of a peer's tls-crypt-v2 key: may it come in?
    TlsCryptV2Verify => "tls-crypt-v2-verify", "tls-crypt-v2-verify";
    /// User name and password: are they right?
    AuthUserPassVerify => "auth-user-pass-verify", "user-pass-verify";
    /// A client is about to be let in; the script may give it settings.
    ClientConnect => "client-connect", "client-connect";
    /// A client has gone.
    ClientDisconnect => "client-disconnect", "client-disconnect";
    /// An address or network is about to be a client's, or is no longer.
    LearnAddress => "learn-address", "learn-address";
}

/// Variables for a script. Names are letters, digits and `_`; values hold no control characters.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// No variables.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets a variable in place of one of the same name. What must not be in a name is left out;
    /// so are control characters in the value, as peers have a say in many of them (CVE-2024-5594).
    pub fn set(&mut self, name: &str, value: impl fmt::Display) {
        let word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        let name: String = name.chars().filter(word).collect();
        let value = value.to_string().chars().filter(|c| !c.is_control()).collect();
        if name.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Takes a variable out.
    pub fn unset(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// Takes out all whose name begins like this.
    pub fn unset_all(&mut self, start: &str) {
        self.0.retain(|(known, _)| !known.starts_with(start));
    }

    /// Sets each variable of `other`, too.
    pub fn extend(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            self.set(name, value);
        }
    }

    /// The value of a variable.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Names only: values may be what a peer would not like to see in a log.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// What a script is told by other means than arguments and ordinary variables.
#[derive(Clone, Default)]
pub enum HookInput {
    /// Nothing.
    #[default]
    Nothing,
    /// By file or by variable, as configured.
    Credentials {
        /// User name.
        username: String,
        /// Password.
        password: Zeroizing<String>,
    },
    /// The metadata behind a tls-crypt-v2 client key [2.5].
    Metadata {
        /// Its kind.
        kind: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// Shows neither passwords nor metadata.
impl fmt::Debug for HookInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Credentials { .. } => "Credentials",
            Self::Metadata { .. } => "Metadata",
        })
    }
}

/// A script to be run.
#[derive(Debug, Clone)]
pub struct HookRequest {
    /// Names this request in the reply; `None` when nobody waits for one.
    pub ticket: Option<u64>,
    /// Which script.
    pub kind: HookKind,
    /// Scripts of one lane run one after the other in the order of their requests; lanes do not
    /// wait for each other.
    pub lane: String,
    /// Arguments behind those of the configuration.
    pub arguments: Vec<String>,
    /// What is known of the client, beside what is known of the process.
    pub environment: Environment,
    /// What else it is told.
    pub input: HookInput,
}

/// What came of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookOutcome {
    /// It agrees. `settings` is what it wrote for the client (`client-connect`), else empty.
    Success {
        /// Directives as in a per-client file.
        settings: String,
    },
    /// It refuses, could not be run, or took too long.
    Failure {
        /// What the client is to be told; may be empty.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_made_harmless() {
        let mut env = Environment::new();
        env.set("X509_0_x\n=y", "a\0b\r\nc\u{7f}\u{9b}d ü $(x)");
        env.set("", "nothing");
        env.set("-=", "nothing");
        assert_eq!(env.iter().collect::<Vec<_>>(), [("X509_0_xy", "abcd ü $(x)")]);
    }

    #[test]
    fn the_last_value_counts() {
        let mut env = Environment::new();
        env.set("a", 1);
        env.set("b", 2);
        let mut other = Environment::new();
        other.set("a", 3);
        other.set("c", 4);
        env.extend(&other);
        assert_eq!(env.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2"), ("c", "4")]);
        assert_eq!((env.value("c"), env.value("d")), (Some("4"), None));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut environment = Environment::new();
        environment.set("username", "hidden");
        let password = Zeroizing::new("hidden".to_owned());
        let request = HookRequest {
            ticket: Some(1),
            kind: HookKind::AuthUserPassVerify,
            lane: String::new(),
            arguments: Vec::new(),
            environment,
            input: HookInput::Credentials { username: "hidden".into(), password },
        };
        assert!(!format!("{request:?}").contains("hidden"));
    }
}
