//! A server and its only client, as `sixgate up` would make them: the same authority, the same
//! configuration, the same profile, but for the cipher and in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{self, CipherName, Config, Files};
use crate::pki::authority::{self, Authority};
use crate::pki::endpoint::Endpoint;
use crate::pki::index::Kind;
use crate::pki::names::{ClientName, SERVER};
use crate::pki::profile::Profile;
use crate::pki::server_conf;
use crate::random::Random;
use crate::time::UnixTime;
use crate::wire::static_key::{StaticKey, V2ClientKey, V2ServerKey};

/// Where the files would be.
const DIR: &str = "/selftest";
/// The client.
const CLIENT: &str = "selftest";

/// Everything the configurations name.
pub struct Site {
    files: Memory,
    server: String,
    name: ClientName,
    ca: String,
    certificate: String,
    key: Zeroizing<String>,
    tls_crypt_v2: Zeroizing<String>,
}

impl Site {
    /// Makes an authority, a server and a client.
    pub fn new(now: UnixTime, rng: &mut dyn Random) -> Result<Self, String> {
        let ca_key = authority::new_key().map_err(text)?;
        let ca = authority::self_sign(ca_key.as_bytes(), now, rng).map_err(text)?;
        let authority = Authority::load(ca.as_bytes(), ca_key.as_bytes()).map_err(text)?;
        let server = authority.issue(Kind::Server, SERVER, now, rng).map_err(text)?;
        let client = authority.issue(Kind::Client, CLIENT, now, rng).map_err(text)?;
        let wrap = V2ServerKey::generate(rng);
        let key = StaticKey::generate(rng);
        let wrapped = wrap.wrap_client_key(&key, &[]).map_err(text)?;

        let mut files = Memory(BTreeMap::new());
        files.add(server_conf::file::CA_CERTIFICATE, ca.as_bytes());
        files.add(server_conf::file::TLS_CRYPT_V2, wrap.to_text().as_bytes());
        let identity = [server.certificate.as_bytes(), server.key.as_bytes()].concat();
        files.add(server_conf::file::SERVER, &Zeroizing::new(identity));
        let (v4, v6) = (server_conf::pick_v4(&[], rng), server_conf::random_ula(rng));
        Ok(Self {
            files,
            server: server_conf::text(DIR, v4, v6),
            name: CLIENT.parse().map_err(text)?,
            ca,
            certificate: client.certificate,
            key: client.key,
            tls_crypt_v2: V2ClientKey { key, wrapped }.to_text(),
        })
    }

    /// The server's configuration, with this data cipher alone.
    pub fn server(&self, cipher: CipherName) -> Result<Config, String> {
        self.load(&[self.server.as_str(), &ciphers(cipher)].concat())
    }

    /// The client's, for a server at `endpoint`.
    pub fn client(&self, cipher: CipherName, endpoint: &str) -> Result<Config, String> {
        let endpoint = Endpoint::parse(endpoint).map_err(text)?;
        let profile = Profile {
            name: &self.name,
            endpoint: Some(&endpoint),
            port: 0,
            ca: &self.ca,
            certificate: &self.certificate,
            key: &self.key,
            tls_crypt_v2: &self.tls_crypt_v2,
        };
        self.load(&[profile.text().as_str(), &ciphers(cipher)].concat())
    }

    fn load(&self, text: &str) -> Result<Config, String> {
        let files = One { text, others: &self.files };
        let loaded = config::load_file(Path::new(DIR), &files);
        loaded.map(|loaded| loaded.config).map_err(|error| error.to_string())
    }
}

fn text(error: impl core::fmt::Display) -> String {
    error.to_string()
}

/// The last line of a name counts.
fn ciphers(cipher: CipherName) -> String {
    ["data-ciphers ", cipher.as_str(), "\nauth SHA256\n"].concat()
}

struct Memory(BTreeMap<PathBuf, Zeroizing<Vec<u8>>>);

impl Memory {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.insert(Path::new(DIR).join(name), Zeroizing::new(bytes.to_vec()));
    }
}

/// A configuration in place of the folder, and the files in it.
struct One<'a> {
    text: &'a str,
    others: &'a Memory,
}

impl Files for One<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        if path == Path::new(DIR) {
            return Ok(self.text.as_bytes().to_vec());
        }
        let found = self.others.0.get(path).map(|bytes| bytes.to_vec());
        found.ok_or_else(|| "no such file".to_owned())
    }

    fn has_aes(&self) -> bool {
        true
    }
}
