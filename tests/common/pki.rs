//! Certificates, keys and configurations for the tests, made in memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use sixgate::client::Client;
use sixgate::config::{self, Config, Files};
use sixgate::server::Server;
use sixgate::time::Now;

use super::Seeded;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Identity {
    pub cert: String,
    pub key: String,
    pub serial: Vec<u8>,
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

/// An Ed25519 key: signatures of constant length keep runs repeatable.
fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key")
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2050, 1, 1);
    params
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key();
        let pem = params.self_signed(&key).expect("sign").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate valid from 2020 to `until` (year).
    pub fn issue(&self, name: &str, usage: Usage, until: i32, serial: u8) -> Identity {
        let mut params = params(name);
        params.not_after = date_time_ymd(until, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = key();
        let cert = params.signed_by(&key, &self.issuer).expect("sign").pem();
        Identity { cert, key: key.serialize_pem(), serial: vec![serial] }
    }
}

/// Files in memory.
#[derive(Default, Clone)]
pub struct Memory(pub HashMap<String, Vec<u8>>);

impl Files for Memory {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let name = path.to_string_lossy();
        self.0.get(name.as_ref()).cloned().ok_or_else(|| "no such file".into())
    }

    fn has_aes(&self) -> bool {
        true
    }
}

/// Loads configuration text, with the identity's material inline.
pub fn load(text: &str, ca: &str, identity: &Identity) -> Config {
    let text = format!(
        "{text}\n<ca>\n{ca}</ca>\n<cert>\n{}</cert>\n<key>\n{}</key>\n",
        identity.cert, identity.key
    );
    let files = Memory([("test.conf".to_owned(), text.into_bytes())].into());
    config::load_file(Path::new("test.conf"), &files).expect("configuration").config
}

/// A whole PKI with a server and clients numbered from 1.
pub struct Site {
    pub ca: Authority,
    pub server: Identity,
}

impl Default for Site {
    fn default() -> Self {
        let ca = Authority::new("Test CA");
        let server = ca.issue("server", Usage::Server, 2050, 1);
        Self { ca, server }
    }
}

/// What most servers of the tests have in common.
pub const SERVER: &str = "dev tun\nserver 10.8.0.0 255.255.255.0\nserver-ipv6 fd00:6::/64\n\
    topology subnet\nkeepalive 10 60\nremote-cert-tls client\n";
/// And the clients.
pub const CLIENT: &str = "client\ndev tun\nremote 192.0.2.1 1194\nremote-cert-tls server\n";

impl Site {
    pub fn server_config(&self, extra: &str) -> Config {
        load(&format!("{SERVER}{extra}"), &self.ca.pem, &self.server)
    }

    pub fn server(&self, now: Now, extra: &str, seed: u64) -> Box<Server> {
        let config = Arc::new(self.server_config(extra));
        Box::new(Server::new(config, now, Box::new(Seeded(seed))).expect("server"))
    }

    pub fn client(&self, now: Now, name: &str, extra: &str, seed: u64) -> Box<Client> {
        let serial = 2 + (seed % 200) as u8;
        let identity = self.ca.issue(name, Usage::Client, 2050, serial);
        let config = Arc::new(load(&format!("{CLIENT}{extra}"), &self.ca.pem, &identity));
        Box::new(Client::new(config, now, Box::new(Seeded(seed))).expect("client"))
    }
}

/// A static key file.
pub fn static_key() -> String {
    sixgate::wire::static_key::StaticKey::generate(&mut Seeded(0x5747)).to_text().to_string()
}

/// A tls-crypt-v2 server key file and a client key file that it accepts.
pub fn v2_keys() -> (String, String) {
    use sixgate::wire::static_key::{StaticKey, V2ClientKey, V2ServerKey};
    let server = V2ServerKey::generate(&mut Seeded(0x5632));
    let key = StaticKey::generate(&mut Seeded(0x5633));
    let wrapped = server.wrap_client_key(&key, &[]).expect("fits");
    (server.to_text().to_string(), V2ClientKey { key, wrapped }.to_text().to_string())
}
