//! Control channel wrapping [2]: `tls-auth`, `tls-crypt`, `tls-crypt-v2`, `key-direction`.

use super::Build;
use crate::config::Wrapping;
use crate::config::lex::Line;
use crate::wire::static_key::{StaticKey, V2ClientKey, V2ServerKey};

/// At most one of them; a server may add `tls-crypt-v2` to another.
pub(super) fn wrapping(b: &mut Build<'_>) -> Wrapping {
    let (auth, crypt, v2) = (b.line("tls-auth"), b.line("tls-crypt"), b.line("tls-crypt-v2"));
    if let (Some(_), Some(line)) = (auth, crypt) {
        b.error(line, "`tls-auth` is given too; a packet is wrapped once, keep one of them (`tls-crypt` is better)");
    }
    if let (Some(line), Some(other), false) = (v2, auth.or(crypt), b.server) {
        b.error(line, format!("`{}` is given too; a client uses one of them", other.name));
    }
    let mut wrapping = Wrapping::default();
    if let Some(line) = auth {
        let direction = direction(b, line);
        wrapping.tls_auth = key(b, line, |file| StaticKey::parse(file)).map(|key| (key, direction));
    } else if let Some(line) = b.line("key-direction") {
        b.warn(line, "has no effect without `tls-auth`");
    }
    wrapping.tls_crypt = crypt.and_then(|line| key(b, line, |file| StaticKey::parse(file)));
    if let Some(line) = v2 {
        match (b.server, line.arg(1)) {
            (true, None | Some("allow-noncookie" | "force-cookie")) | (false, None) => {}
            (true, Some(_)) => {
                b.error(line, "the second argument is `allow-noncookie` or `force-cookie`")
            }
            (false, Some(_)) => b.warn(line, "the second argument has no effect on a client"),
        }
        if b.server {
            wrapping.v2_server = key(b, line, |file| V2ServerKey::parse(file));
        } else {
            wrapping.v2_client = key(b, line, |file| V2ClientKey::parse(file));
        }
    }
    wrapping
}

/// The second argument of `tls-auth`, else `key-direction`, else none: both ends use the same half.
fn direction(b: &mut Build<'_>, line: &Line) -> Option<u8> {
    let separate = b.line("key-direction");
    let given = if line.args.len() > 1 { Some((line, 1)) } else { separate.map(|line| (line, 0)) };
    let (at, index) = given?;
    let text = at.arg(index)?;
    match text {
        "0" | "normal" => Some(0),
        "1" | "inverse" => Some(1),
        "bidirectional" => None,
        _ => {
            b.error(at, format!("the key direction is 0 or 1, not `{}`", text.escape_debug()));
            None
        }
    }
}

/// Reads and parses a key file.
fn key<K, E: core::fmt::Display>(
    b: &mut Build<'_>,
    line: &Line,
    parse: impl Fn(&[u8]) -> Result<K, E>,
) -> Option<K> {
    let file = b.content(line)?;
    match parse(&file) {
        Ok(key) => Some(key),
        Err(why) => {
            let name =
                if line.inline.is_some() { "the block" } else { line.arg(0).unwrap_or_default() };
            b.error(line, format!("{}: {why}", name.escape_debug()));
            None
        }
    }
}
