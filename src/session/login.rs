//! A client's user name and password, which a server may replace by a token at any time [7.5].
//!
//! Shared by the sessions of an engine, so that a token serves renegotiations and reconnections alike.

use std::sync::{PoisonError, RwLock};

use zeroize::Zeroizing;

use crate::wire::key_method::Credentials;

/// User name and password, or none. Shows neither in logs.
#[derive(Default)]
pub struct Login(RwLock<Option<(String, Zeroizing<String>)>>);

impl core::fmt::Debug for Login {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    /// From the configuration.
    pub fn new(credentials: Option<(String, Zeroizing<String>)>) -> Self {
        Self(RwLock::new(credentials))
    }

    /// What key exchanges say from now on.
    pub fn set(&self, login: Option<(String, Zeroizing<String>)>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = login;
    }

    /// The user name, when there is one.
    pub fn name(&self) -> Option<String> {
        let login = self.0.read().unwrap_or_else(PoisonError::into_inner);
        login.as_ref().map(|(name, _)| name.clone())
    }

    /// For the key exchange.
    pub(super) fn credentials(&self) -> Credentials {
        let login = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some((username, password)) = login.as_ref() else { return Credentials::default() };
        Credentials { username: username.clone(), password: password.clone() }
    }
}
