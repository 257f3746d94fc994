//! Bodies of the fuzz targets of this ring; see `wire::fuzz`.

use std::path::Path;

use crate::config::{Files, Role, ccd, lex, load_file};

/// A folder: the input is its main file and whatever that includes, the rest is as it should be.
struct Folder<'a>(&'a [u8]);

const CERT: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
const SERVER: &[u8] =
    b"dev tun\nserver 10.8.0.0 255.255.255.0\nserver-ipv6 fd00::/64\nca c\ncert c\nkey k\n";

impl Files for Folder<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        match path.to_str() {
            Some("main.conf") => Ok(self.0.to_vec()),
            // Itself, unless that would be much.
            Some("more") => Ok(self.0.get(..self.0.len().min(300)).unwrap_or_default().to_vec()),
            Some("c") => Ok(CERT.into()),
            Some("k") => Ok(KEY.into()),
            Some("p") => Ok(b"jo\nsecret\n".into()),
            Some(_) | None => Err("no such file".to_owned()),
        }
    }

    fn has_aes(&self) -> bool {
        true
    }
}

/// A configuration file: a configuration, or complaints that can be printed.
pub fn config(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(line) = core::str::from_utf8(line) else { continue };
        if let Ok(words) = lex::split(line) {
            assert!(words.len() <= 16, "{}", words.len());
        }
    }
    match load_file("main.conf", &Folder(bytes)) {
        Ok(loaded) => {
            assert!(!loaded.plan().is_empty());
            for warning in &loaded.warnings {
                assert!(is_clean(&warning.to_string()), "{warning}");
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.lines().all(is_clean), "{text:?}");
        }
    }
}

/// A client's file on a dual-stack server.
pub fn client_file(bytes: &[u8]) {
    let Ok(loaded) = load_file("main.conf", &Folder(SERVER)) else { unreachable!("it is valid") };
    let Role::Server(role) = loaded.config.role else { unreachable!("it is a server's") };
    match ccd::load(Path::new("more"), Path::new(""), &Folder(bytes), &role) {
        Ok((settings, warnings)) => {
            let mut merged = settings.clone();
            merged.merge(settings);
            assert!(warnings.iter().all(|warning| is_clean(&warning.to_string())));
        }
        Err(error) => assert!(error.to_string().lines().all(is_clean)),
    }
    if let Some(name) = ccd::file_name(&String::from_utf8_lossy(bytes)) {
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
        assert!(!name.contains('/') && name != "." && name != "..");
    }
}

/// Fit for a terminal.
fn is_clean(text: &str) -> bool {
    !text.contains(char::is_control)
}
