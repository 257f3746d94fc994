//! Every fuzz body over the kept inputs, over all their beginnings, and over damaged copies of them:
//! what once broke something is replayed, and a short search needs no special toolchain. The long
//! search is `fuzz/run`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Seeded, model};
use sixgate::{client, config, manage, offload, server, session, wire};

/// A fuzz target: its name, its body, and how many damaged inputs are tried here.
struct Target(&'static str, fn(&[u8]), usize);

const TARGETS: &[Target] = &[
    Target("wire_control", wire::fuzz::control, 2_000),
    Target("wire_data", wire::fuzz::data, 1_000),
    Target("wire_wkc", wire::fuzz::wrapped_key, 1_000),
    Target("wire_key_method", wire::fuzz::key_method, 1_500),
    Target("wire_peer_info", wire::fuzz::peer_info, 800),
    Target("wire_message", wire::fuzz::message, 1_500),
    Target("wire_key_file", wire::fuzz::key_file, 600),
    Target("wire_ip", wire::fuzz::ip, 1_500),
    Target("wrap", session::fuzz::wrap, 60),
    Target("client_key", session::fuzz::client_key, 60),
    Target("reliable", session::fuzz::reliable, 40),
    Target("data_open", session::fuzz::data_open, 120),
    Target("certificate", session::fuzz::certificate, 500),
    Target("push", client::fuzz::push, 600),
    Target("config", config::fuzz::config, 150),
    Target("client_file", config::fuzz::client_file, 100),
    Target("pool_file", server::fuzz::pool_file, 200),
    Target("routes", server::fuzz::routes, 60),
    Target("token", server::fuzz::token, 200),
    Target("console", manage::fuzz::console, 200),
    Target("split", offload::fuzz::split, 600),
    Target("coalesce", offload::fuzz::coalesce, 100),
    Target("server", model::server, 15),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The kept inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs = Vec::new();
    for kind in ["corpus", "crashes"] {
        let Ok(entries) = fs::read_dir(folder().join(kind).join(target)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            inputs.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    inputs.sort();
    inputs
}

/// Does one to four kinds of damage.
fn damage(rng: &mut Seeded, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.next() % 4 {
        let at = (rng.next() % (bytes.len() as u64 + 1)) as usize;
        match rng.next() % 7 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.next() as u8),
            2 => drop(bytes.splice(at.., rng.next().to_be_bytes())),
            3 if bytes.len() < 20_000 => bytes.extend_from_within(at..),
            4 if bytes.len() < 20_000 => {
                let from = (rng.next() % (other.len() as u64 + 1)) as usize;
                drop(bytes.splice(at..at, other[from..].iter().copied().take(200)));
            }
            _ => {
                let special = [0, 1, 2, 0x7f, 0x80, 0xff, b'\n', b',', b' ', rng.next() as u8];
                let value = special[(rng.next() % special.len() as u64) as usize];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
        }
    }
}

/// Runs a body; a panic in it is told with the input.
fn run(target: &Target, what: &str, bytes: &[u8]) {
    let Target(name, body, _) = target;
    if std::panic::catch_unwind(|| body(bytes)).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{name}"));
        fs::write(&path, bytes).unwrap();
        panic!(
            "{name}: {what}; the input is in {}: keep it in fuzz/crashes/{name}",
            path.display()
        );
    }
}

fn search(targets: impl Iterator<Item = &'static Target>) {
    for target in targets {
        let Target(name, _, rounds) = target;
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty");
        for (path, bytes) in &inputs {
            run(target, path, bytes);
        }
        // Beginnings of the shortest: half a packet is the commonest damage of all.
        let shortest = inputs.iter().min_by_key(|(_, bytes)| bytes.len());
        for len in shortest.map_or(0..0, |(_, bytes)| 0..bytes.len().min(rounds / 2)) {
            run(target, "a beginning", &shortest.unwrap().1[..len]);
        }
        let mut rng = Seeded(7);
        for round in 0..*rounds {
            let pick = |rng: &mut Seeded| &inputs[(rng.next() % inputs.len() as u64) as usize].1;
            let (mut bytes, other) = (pick(&mut rng).clone(), pick(&mut rng).clone());
            damage(&mut rng, &mut bytes, &other);
            run(target, &format!("round {round}"), &bytes);
        }
    }
}

#[test]
fn parsers() {
    search(TARGETS.iter().filter(|target| target.0.starts_with("wire_")));
}

#[test]
fn engines_against_their_model() {
    search(TARGETS.iter().filter(|target| target.0 == "server"));
}

#[test]
fn everything_else() {
    let others = TARGETS.iter().filter(|target| !target.0.starts_with("wire_"));
    search(others.filter(|target| target.0 != "server"));
}

#[test]
fn every_target_is_run_by_libfuzzer_too() {
    let mut files: Vec<String> = fs::read_dir(folder().join("targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.0).collect();
    names.sort_unstable();
    assert_eq!(files, names);
}
