//! Scripts and logins as configured: which programs run when, and what a server asks of a client
//! beside its certificate [9.12, 7.5].

use std::path::PathBuf;
use std::time::Duration;

/// A program and its arguments, as they are executed: no shell is involved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The file to execute.
    pub path: PathBuf,
    /// Arguments, before those that belong to the occasion.
    pub arguments: Vec<String>,
}

/// Every script that is to be run, and what they all get to see.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// `up`.
    pub up: Option<Program>,
    /// `down`.
    pub down: Option<Program>,
    /// `route-up`.
    pub route_up: Option<Program>,
    /// `route-pre-down`.
    pub route_pre_down: Option<Program>,
    /// `dns-updown`.
    pub dns_updown: Option<Program>,
    /// `ipchange`.
    pub ipchange: Option<Program>,
    /// `tls-verify`.
    pub tls_verify: Option<Program>,
    /// `tls-crypt-v2-verify`.
    pub tls_crypt_v2_verify: Option<Program>,
    /// `auth-user-pass-verify`.
    pub auth_user_pass_verify: Option<Program>,
    /// `client-connect`.
    pub client_connect: Option<Program>,
    /// `client-disconnect`.
    pub client_disconnect: Option<Program>,
    /// `learn-address`.
    pub learn_address: Option<Program>,
    /// How `auth-user-pass-verify` is told the password.
    pub password_by: PasswordBy,
    /// `setenv`, `setenv-safe`: variables for all scripts.
    pub variables: Vec<(String, String)>,
    /// `tmp-dir`: where files for scripts are made; `None` is the system's folder for them.
    pub folder: Option<PathBuf>,
    /// `down-pre`: run `down` while addresses and routes are still there.
    pub down_first: bool,
    /// `up-restart`: run `up` and `down` at each new connection, too.
    pub at_restart: bool,
}

impl Hooks {
    /// Sets the variable `config`, unless the configuration does.
    pub(super) fn tell_file(&mut self, file: &str) {
        self.variables.insert(0, ("config".to_owned(), file.to_owned()));
    }
}

/// How a script is told a password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PasswordBy {
    /// `via-file`: a file of two lines whose name is its last argument.
    #[default]
    File,
    /// `via-env` with `script-security 3`: the variable `password`.
    Variable,
    /// `via-env` without: not at all.
    Nothing,
}

/// What a server asks of a client beside, or instead of, its certificate.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// `management-client-auth`: the management program decides.
    pub by_management: bool,
    /// `auth-user-pass-optional`: a user name may be missing.
    pub optional: bool,
    /// `username-as-common-name`: a client goes by its user name.
    pub name_is_username: bool,
    /// `auth-gen-token`.
    pub token: Option<Box<TokenPolicy>>,
}

/// `verify-client-cert`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Every client needs one.
    #[default]
    Require,
    /// One that is shown must be good.
    Optional,
    /// None is asked for.
    None,
}

/// `auth-gen-token` [7.5].
#[derive(Clone)]
pub struct TokenPolicy {
    /// A token's end, counted from the login with a password; zero is never.
    pub lifetime: Duration,
    /// How often a client gets a new one; two of these without a new one, and it is void.
    pub renewal: Duration,
    /// `external-auth`: a token does not spare the script, which is told what it is worth.
    pub external: bool,
    /// `auth-gen-token-secret`; `None` is a random key, void after a restart.
    pub secret: Option<crate::wire::static_key::TokenKey>,
}

impl core::fmt::Debug for TokenPolicy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TokenPolicy").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}
