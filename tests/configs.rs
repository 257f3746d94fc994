//! Configurations as people have them: each in tests/configs says in its comments which remarks it
//! must get, line by line, and gets no others.

use std::fs;
use std::path::{Path, PathBuf};

use sixgate::config::{Diagnostic, Files, load_args, load_file};

/// The configuration from disk; keys and certificates made up by what they are called.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.starts_with(folder())
            && path.extension().is_some_and(|ending| ending == "conf" || ending == "ovpn")
        {
            return fs::read(path).map_err(|error| error.to_string());
        }
        let pem = |kind: &str, body: &str| {
            format!("-----BEGIN {kind}-----\n{body}-----END {kind}-----\n")
        };
        let text = match name.as_str() {
            "ta.key" | "tc.key" | "tls-auth" => {
                pem("OpenVPN Static key V1", &"000102030405060708090a0b0c0d0e0f\n".repeat(16))
            }
            "v2-server.key" => {
                let body = format!("{}\n", "A".repeat(170)) + "A=\n";
                pem("OpenVPN tls-crypt-v2 server key", &body.replace("\nA=", "A="))
            }
            "crl.pem" => pem("X509 CRL", "AA==\n"),
            "pass.txt" => "alice\nsecret\n".to_owned(),
            name if name.ends_with("key") => pem("PRIVATE KEY", "AA==\n"),
            name if name.ends_with("crt") || name == "cert" => pem("CERTIFICATE", "AA==\n"),
            _ => return Err("no such file".to_owned()),
        };
        Ok(text.into_bytes())
    }

    fn has_aes(&self) -> bool {
        true
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs")
}

/// A remark that a comment asks for: line (0 for the whole), whether an error, part of its text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    line: u32,
    error: bool,
    text: String,
}

fn wanted(config: &str) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (number, line) in (1..).zip(config.lines()) {
        let Some((before, marker)) = line.split_once("#~ ") else { continue };
        let (kind, text) = marker.split_once(": ").expect("#~ KIND: TEXT");
        let error = match kind {
            "error" => true,
            "warn" => false,
            other => panic!("{other}"),
        };
        let line = if before.trim().is_empty() { 0 } else { number };
        wanted.push(Wanted { line, error, text: text.to_owned() });
    }
    wanted
}

/// What is missing or too much, as text.
fn differences(mut wanted: Vec<Wanted>, error: bool, got: &[Diagnostic]) -> Vec<String> {
    wanted.retain(|want| want.error == error);
    let mut different = Vec::new();
    for remark in got {
        let found = wanted
            .iter()
            .position(|want| want.line == remark.line && remark.text.contains(&want.text));
        match found {
            Some(index) => drop(wanted.remove(index)),
            None => different.push(format!("unexpected: {remark}")),
        }
    }
    different.extend(wanted.iter().map(|want| format!("missing: {want:?}")));
    different
}

#[test]
fn each_configuration_gets_exactly_its_remarks() {
    let mut paths: Vec<_> = fs::read_dir(folder())
        .expect("tests/configs")
        .map(|entry| entry.expect("entry").path())
        .collect();
    paths.retain(|path| path.extension().is_some());
    paths.sort();
    assert!(paths.len() >= 12);
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        let (errors, warnings) = match load_file(&path, &Disk) {
            Ok(loaded) => {
                assert!(loaded.plan().len() > 5);
                (Vec::new(), loaded.warnings)
            }
            Err(error) => (error.problems, error.warnings),
        };
        wrong.extend(differences(wanted(&text), true, &errors));
        wrong.extend(differences(wanted(&text), false, &warnings));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// How Debian's unit and OpenWrt's init script call OpenVPN.
#[test]
fn service_managers_command_lines() {
    let debian = "--status /run/openvpn-server/status-a.log --status-version 2 --suppress-timestamps --cd DIR --config ipv6-only-server.conf";
    let openwrt = "--syslog openvpn(a) --status /var/run/openvpn.a.status --cd DIR --config openwrt-server.conf --dev tun7";
    for (line, warnings) in [(debian, 1), (openwrt, 2)] {
        let folder = folder().to_string_lossy().into_owned();
        let args: Vec<_> = line.split(' ').map(|word| word.replace("DIR", &folder)).collect();
        let loaded = load_args(&args, &Disk).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings.len(), warnings, "{:#?}", loaded.warnings);
    }
}
