//! `sixgate client totp`: a client's secret for one-time codes, made, stored and shown.
//!
//! The secret goes into the client's file as `totp`, which a running server reads at once; the
//! profile in the state folder asks for codes from then on. What a code is, is `server::totp`'s business.

use std::io::{self, IsTerminal as _};

use zeroize::Zeroizing;

use super::clock::OsRandom;
use super::commands::{print, remark};
use super::{client_set, state};
use crate::cli;
use crate::config::ccd::wish::Wish;
use crate::config::totp::{SECRET, TotpSecret};
use crate::pki::names::ClientName;
use crate::pki::profile::CODE_LINES;
use crate::pki::qr;
use crate::random::Random as _;

/// Under which name apps show the codes, where the server's address is not known.
const ISSUER: &str = "sixgate";

/// `sixgate client totp`.
pub fn run(options: &cli::ClientTotp) -> Result<(), String> {
    let name = ClientName::read(&options.name)?;
    let secret = (!options.remove).then(|| {
        let mut bytes = Zeroizing::new([0; SECRET]);
        OsRandom::new().fill(&mut *bytes);
        TotpSecret::new(&*bytes)
    });
    let set = cli::ClientSet {
        name: options.name.clone(),
        settings: Vec::new(),
        dir: options.dir.clone(),
        config: None,
        files: None,
    };
    client_set::apply(&set, &name, &Wish::totp(secret.clone()))
        .map_err(|error| format!("client {name}: {error}"))?;
    let profile = state::client_asks_code(&options.dir, name.as_str(), !options.remove)?;
    let what = if options.remove { "asks for no code any more" } else { "asks for a code now" };
    remark(&[match profile {
        Some(path) => format!("{} {what}; it has to be imported again", path.display()),
        None if options.remove => {
            format!("take these lines out of the profile that was handed out:\n{CODE_LINES}")
        }
        None => format!("put these lines into the profile that was handed out:\n{CODE_LINES}"),
    }]);
    let Some(secret) = secret else { return Ok(()) };
    let issuer = state::endpoint_host(&options.dir).unwrap_or_else(|| ISSUER.to_owned());
    let uri = secret.uri(&issuer, name.as_str());
    if let Some(code) = qr::blocks(&uri, io::stdout().is_terminal()).map(Zeroizing::new) {
        print(&code)?;
    }
    print(&Zeroizing::new(format!("{}\nsecret: {}\n", *uri, *secret.text())))?;
    remark(&[
        "scan the code with an authenticator app, or type the secret; it is not shown again".into(),
        "the user name and the password that the profile asks for may be anything, such as the client's name"
            .into(),
    ]);
    Ok(())
}
