//! Scripts, `script-security`, `setenv`, and what a server asks of clients beside certificates.

use std::time::Duration;

use super::Build;
use crate::config::hooks::{ClientCertificate, Hooks, Login, PasswordBy, Program, TokenPolicy};
use crate::config::lex::{self, Line};
use crate::config::{Timers, Wrapping};
use crate::wire::static_key::TokenKey;

/// `script-security` from which scripts are run, and from which passwords are in variables.
const SCRIPTS: u32 = 2;
const PASSWORDS: u32 = 3;
/// What can check user names.
const CHECKERS: &str = "`auth-user-pass-verify` or `management-client-auth`";

/// All of `config::Hooks`.
pub(super) fn hooks(b: &mut Build<'_>, wrap: &Wrapping) -> Hooks {
    let security = b.value("script-security", 0..=PASSWORDS).unwrap_or(1);
    let mut program = |name| program(b, name, security);
    let hooks = Hooks {
        up: program("up"),
        down: program("down"),
        route_up: program("route-up"),
        route_pre_down: program("route-pre-down"),
        dns_updown: program("dns-updown"),
        ipchange: program("ipchange"),
        tls_verify: program("tls-verify"),
        tls_crypt_v2_verify: program("tls-crypt-v2-verify"),
        auth_user_pass_verify: program("auth-user-pass-verify"),
        client_connect: program("client-connect"),
        client_disconnect: program("client-disconnect"),
        learn_address: program("learn-address"),
        password_by: password_by(b, security),
        variables: variables(b),
        folder: b.line("tmp-dir").and_then(|line| line.arg(0)).map(|name| b.source.path(name)),
        down_first: b.has("down-pre"),
        at_restart: b.has("up-restart"),
    };
    if let (Some(line), None) = (b.line("tls-crypt-v2-verify"), &wrap.v2_server) {
        b.warn(line, "has no effect without `tls-crypt-v2`");
    }
    hooks
}

/// The argument is one word that holds a program and its arguments, split as a line is.
fn program(b: &mut Build<'_>, name: &str, security: u32) -> Option<Program> {
    let line = b.line(name)?;
    match (name, line.arg(0)) {
        ("dns-updown", Some("disable")) => return None,
        ("dns-updown", Some("force")) => {
            b.warn(line, "has no effect: no such script comes with sixgate; name yours");
            return None;
        }
        _ => {}
    }
    if security < SCRIPTS {
        b.error(line, format!("a script runs only with `script-security {SCRIPTS}`"));
    }
    let mut words = match lex::split(line.arg(0)?) {
        Ok(words) => words.into_iter(),
        Err(why) => {
            b.error(line, why);
            return None;
        }
    };
    let Some(path) = words.next() else {
        b.error(line, "names no program");
        return None;
    };
    let path = b.source.path(&path);
    if let Err(why) = b.files.is_executable(&path) {
        b.error(line, format!("{}: {why}", path.display()));
    }
    Some(Program { path, arguments: words.collect() })
}

fn password_by(b: &mut Build<'_>, security: u32) -> PasswordBy {
    let Some(line) = b.line("auth-user-pass-verify") else { return PasswordBy::File };
    match line.arg(1) {
        Some("via-file") => PasswordBy::File,
        Some("via-env") if security >= PASSWORDS => PasswordBy::Variable,
        Some("via-env") => {
            b.warn(
                line,
                format!(
                    "the script does not get to see passwords without `script-security {PASSWORDS}`"
                ),
            );
            PasswordBy::Nothing
        }
        Some(_) | None => {
            b.error(line, "the second argument is `via-env` or `via-file`");
            PasswordBy::File
        }
    }
}

/// `setenv` and `setenv-safe`, of which the latter may stand in a per-client file, too.
pub(super) fn variables(b: &mut Build<'_>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (directive, prefix) in [("setenv", ""), ("setenv-safe", "OPENVPN_")] {
        for line in b.source.all(directive) {
            let (Some(name), value) = (line.arg(0), line.arg(1).unwrap_or_default()) else {
                continue;
            };
            all.push((format!("{prefix}{name}"), value.to_owned()));
        }
    }
    all
}

/// All of `config::Login`.
pub(super) fn login(b: &mut Build<'_>, timers: &Timers) -> Login {
    let by_management = b.has("management-client-auth");
    if let (Some(line), false) = (b.line("management-client-auth"), b.has("management")) {
        b.error(line, "needs `management`, or nobody could let anybody in");
    }
    let checked = is_checked(b);
    for name in ["auth-user-pass-optional", "username-as-common-name", "auth-gen-token"] {
        if let (Some(line), false) = (b.line(name), checked) {
            b.error(line, format!("nothing checks user names: it needs {CHECKERS}"));
        }
    }
    if let (Some(line), false) = (b.line("auth-gen-token-secret"), b.has("auth-gen-token")) {
        b.warn(line, "has no effect without `auth-gen-token`");
    }
    Login {
        by_management,
        optional: b.has("auth-user-pass-optional"),
        name_is_username: b.has("username-as-common-name"),
        token: b.line("auth-gen-token").and_then(|line| token(b, line, timers)),
    }
}

/// `verify-client-cert`, which is part of `config::Tls`.
pub(super) fn certificate(b: &mut Build<'_>) -> ClientCertificate {
    let Some(line) = b.line("verify-client-cert") else { return ClientCertificate::Require };
    let (kind, name) = match line.arg(0) {
        None | Some("require") => return ClientCertificate::Require,
        Some("optional") => (ClientCertificate::Optional, "optional"),
        Some("none") => (ClientCertificate::None, "none"),
        Some(_) => {
            b.error(line, "must be `require`, `optional` or `none`");
            return ClientCertificate::Require;
        }
    };
    if !is_checked(b) {
        b.error(line, format!("with `{name}` anybody could come in: it needs {CHECKERS}"));
    } else if b.has("auth-user-pass-optional") {
        b.error(line, format!("with `{name}` and `auth-user-pass-optional` anybody could come in"));
    }
    kind
}

/// Whether anybody looks at user names. A plugin would, too, and has been refused already.
fn is_checked(b: &Build<'_>) -> bool {
    ["auth-user-pass-verify", "management-client-auth", "plugin"]
        .iter()
        .any(|name| b.source.mentions(name))
}

fn token(b: &mut Build<'_>, line: &Line, timers: &Timers) -> Option<Box<TokenPolicy>> {
    let seconds = |n: Option<u32>| Duration::from_secs(n.unwrap_or(0).into());
    let lifetime = seconds(b.number(line, 0, 0..=u32::MAX));
    let is_flag = |word: &&str| *word == "external-auth";
    let external = line.args.iter().skip(1).any(|word| is_flag(&word.as_str()));
    let renewal = match line.arg(1).filter(|word| !is_flag(word)) {
        Some(_) => seconds(b.number(line, 1, 0..=u32::MAX)),
        None => Duration::ZERO,
    };
    if line.args.iter().skip(2).any(|word| !is_flag(&word.as_str())) {
        b.error(line, "takes a lifetime and a renewal time in seconds, then `external-auth`");
    }
    let renewal = match (renewal, timers.reneg.0) {
        (Duration::ZERO, Duration::ZERO) => Duration::from_secs(3600),
        (Duration::ZERO, reneg) => reneg,
        (renewal, _) => renewal,
    };
    let secret = match b.line("auth-gen-token-secret") {
        None => None,
        Some(line) => {
            let file = b.content(line)?;
            match TokenKey::parse(&*file) {
                Ok(key) => Some(key),
                Err(why) => {
                    b.error(line, why);
                    None
                }
            }
        }
    };
    Some(Box::new(TokenPolicy { lifetime, renewal, external, secret }))
}

#[cfg(test)]
mod tests {
    use crate::config::Role;
    use crate::config::hooks::PasswordBy;
    use crate::config::tests::{client, error_of, server};

    #[test]
    fn variables_reach_scripts_under_the_names_of_openvpn() {
        let loaded = server("setenv FOO bar\nsetenv-safe SAFE \"1 2\"\nsetenv EMPTY");
        let variables = loaded.config.hooks.variables;
        for (name, value) in [("FOO", "bar"), ("OPENVPN_SAFE", "1 2"), ("EMPTY", "")] {
            assert!(variables.contains(&(name.to_owned(), value.to_owned())), "{variables:?}");
        }
    }

    #[test]
    fn scripts_and_passwords_need_their_level_of_security() {
        let base = "server 10.8.0.0 255.255.255.0\n";
        for level in ["", "script-security 1\n"] {
            let error = error_of(&format!("{base}{level}client-connect /c\n"));
            assert!(error.contains("a script runs only with `script-security 2`"), "{error}");
        }
        let by = |level: u32| {
            let loaded =
                server(&format!("script-security {level}\nauth-user-pass-verify /p via-env"));
            (loaded.config.hooks.password_by, loaded.warnings.len())
        };
        assert_eq!(by(2), (PasswordBy::Nothing, 1));
        assert_eq!(by(3), (PasswordBy::Variable, 0));
    }

    #[test]
    fn times_of_tokens_and_who_is_asked_about_them() {
        let checked = "script-security 2\nauth-user-pass-verify /p via-file\nreneg-sec 500\n";
        let policy = |line: &str| {
            let login = match server(&format!("{checked}auth-gen-token {line}")).config.role {
                Role::Server(role) => role.login,
                Role::Client(_) => panic!("a client"),
            };
            let token = login.token.unwrap();
            (token.lifetime.as_secs(), token.renewal.as_secs(), token.external)
        };
        assert_eq!(policy(""), (0, 500, false));
        assert_eq!(policy("900 60"), (900, 60, false));
        assert_eq!(policy("900 external-auth"), (900, 500, true));
        assert_eq!(policy("900 60 external-auth"), (900, 60, true));
        for wrong in ["external-auth", "900 60 70", "900 60 external"] {
            let _ = error_of(&format!(
                "server 10.8.0.0 255.255.255.0\n{checked}auth-gen-token {wrong}\n"
            ));
        }
    }

    #[test]
    fn the_script_for_dns_may_be_none() {
        let hooks = |line: &str| {
            let loaded = client(&format!("script-security 2\ndns-updown {line}"));
            let path = loaded.config.hooks.dns_updown.map(|program| program.path);
            (path, loaded.warnings.len())
        };
        assert_eq!(hooks("/etc/vpn/dns"), (Some("/etc/vpn/dns".into()), 0));
        assert_eq!(hooks("disable"), (None, 0));
        assert_eq!(hooks("force"), (None, 1));
    }

    #[test]
    fn the_management_program_counts_as_who_checks_user_names() {
        let base = "server 10.8.0.0 255.255.255.0\n";
        let lines =
            "management /m unix\nmanagement-client-auth\nverify-client-cert none\nauth-gen-token";
        assert!(server(lines).config.hooks.auth_user_pass_verify.is_none());
        let error = error_of(&format!("{base}management-client-auth\n"));
        assert!(error.contains("needs `management`"), "{error}");
        let error = error_of(&format!("{base}verify-client-cert none\n"));
        assert!(error.contains("anybody could come in"), "{error}");
    }
}
