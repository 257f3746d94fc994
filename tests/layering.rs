//! The shape of the source, checked: the ring rule, purity, file sizes, and the README's directive table.
//!
//! `clippy.toml` bans clocks, files, sockets and threads by what they are; this test finds them by
//! how they are written, and knows the rings. After a change of the directive table,
//! `SIXGATE_BLESS=1 cargo test --test layering` writes it into README.md.

use std::fs;
use std::path::{Path, PathBuf};

use sixgate::config::directive::markdown_table;

/// Which modules of the crate each part may name, besides itself. `sys` and `main` may name all.
const RINGS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("time", &[]),
    ("random", &[]),
    ("rate", &["time"]),
    ("sorted", &[]),
    ("buf", &["limits"]),
    ("engine", &["buf", "config", "limits", "time", "wire"]),
    // `config` here is names and plain values: ciphers, digests, the kinds of mssfix.
    ("wire", &["buf", "config", "limits", "random"]),
    ("config", &["limits", "wire"]),
    ("pki", &["limits", "random", "time", "wire"]),
    ("selftest", &["config", "pki", "random", "time", "wire"]),
    ("manage", &["config", "engine", "limits", "time"]),
    ("doctor", &["time"]),
    ("offload", &["buf", "engine", "limits", "wire"]),
    ("session", &["buf", "config", "engine", "limits", "random", "time", "wire"]),
    (
        "server",
        &[
            "buf", "config", "engine", "limits", "manage", "random", "rate", "session", "sorted",
            "time", "wire",
        ],
    ),
    (
        "client",
        &[
            "buf", "config", "engine", "limits", "manage", "random", "rate", "session", "sorted",
            "time", "wire",
        ],
    ),
];

/// Ways to reach the outside world, as they are written.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "std::os::",
    "Instant::now",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "libc::",
    "netlink_packet",
    "unsafe ",
    "unsafe{",
    "println!",
    "eprintln!",
    "dbg!",
];

/// Longest source file.
const MAX_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file: its path below src/, and its text.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    let base = root().join("src");
    walk(&base, &mut found);
    found.sort();
    let named = |path: &PathBuf| {
        let name = path.strip_prefix(&base).expect("below src").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("readable file"))
    };
    found.iter().map(named).collect()
}

/// The part of the crate a file belongs to: `wire` for wire/ip.rs, `buf` for buf.rs.
fn part(name: &str) -> &str {
    let first = name.split('/').next().unwrap_or(name);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Whether a file is the shell, which may do anything.
fn is_shell(name: &str) -> bool {
    matches!(part(name), "sys" | "main")
}

/// The lines of product code with their numbers: no comments, no tests (which are last in a file).
fn product<'a>(name: &str, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let is_test_file =
        name.ends_with("/tests.rs") || name.contains("/tests/") || name.ends_with("/testing.rs");
    let tests = || {
        let start = text.find("mod tests {")?;
        text.get(..start)?.rfind("\n#[cfg(test)]\n").filter(|at| start - at < 40)
    };
    let end = if is_test_file { Some(0) } else { tests() };
    let code = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    (1..).zip(code.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The modules that a line names through `crate::`.
fn named_modules(line: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (start, _) in line.match_indices("crate::") {
        let rest = &line[start + "crate::".len()..];
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            for item in list.split_inclusive([',', '{', '}']) {
                let word: String = item.trim_start().chars().take_while(|c| is_word(*c)).collect();
                if depth == 0 && !word.is_empty() {
                    modules.push(word);
                }
                match item.chars().last() {
                    Some('{') => depth += 1,
                    Some('}') => depth -= 1,
                    _ => {}
                }
            }
        } else {
            modules.push(rest.chars().take_while(|c| is_word(*c)).collect());
        }
    }
    modules
}

fn report(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn dependencies_point_inward() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let part = part(&name);
        if is_shell(&name) || matches!(part, "lib" | "cli") {
            continue;
        }
        let Some((_, allowed)) = RINGS.iter().find(|(ring, _)| *ring == part) else {
            broken.push(format!("src/{name}: `{part}` has no place in RINGS of tests/layering.rs"));
            continue;
        };
        for (number, line) in product(&name, &text) {
            for module in named_modules(line) {
                let fine = module == part || allowed.contains(&module.as_str());
                if !fine && module.starts_with(char::is_lowercase) {
                    broken.push(format!("src/{name}:{number}: {part} must not name {module}"));
                }
            }
        }
    }
    report(&broken);
}

#[test]
fn only_the_shell_touches_the_world() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        if is_shell(&name) {
            continue;
        }
        for (number, line) in product(&name, &text) {
            // `crate::time::Instant` is a value; the real clock's comes by its full name.
            let clock = line.contains("std::time") && line.contains("Instant");
            for word in IMPURE
                .iter()
                .filter(|word| line.contains(**word))
                .chain(clock.then_some(&"std::time::Instant"))
            {
                broken.push(format!("src/{name}:{number}: {word} belongs into src/sys"));
            }
        }
    }
    report(&broken);
}

/// Builds for size have no `Debug` (`-Zfmt-debug=none`): what users read would be empty.
#[test]
fn nothing_is_said_in_debug_form() {
    let mut broken = Vec::new();
    // The bodies of fuzz targets are for developers.
    for (name, text) in sources().into_iter().filter(|(name, _)| !name.ends_with("fuzz.rs")) {
        let mut in_debug = false;
        for (number, line) in product(&name, &text) {
            // The implementation of `Debug` itself may.
            in_debug |= line.contains("Debug for ");
            in_debug &= !line.starts_with('}');
            if !in_debug && (line.contains(":?}") || line.contains(":#?}")) {
                broken.push(format!("{name}:{number}: write `Display` or a text of your own"));
            }
        }
    }
    report(&broken);
}

#[test]
fn files_explain_themselves_and_stay_short() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        if !text.trim().is_empty() && !text.starts_with("//! ") {
            broken.push(format!("src/{name}: does not start with //!"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            broken.push(format!("src/{name}: {lines} lines, {MAX_LINES} is the limit"));
        }
    }
    report(&broken);
}

/// Test programs are named in Cargo.toml, modules in tests/whole.rs: a file in neither would never run.
#[test]
fn every_test_is_part_of_a_program() {
    let named = [("Cargo.toml", "name = \"", "\""), ("tests/whole.rs", "mod ", ";")].map(
        |(file, before, after)| {
            let text = fs::read_to_string(root().join(file)).expect(file);
            text.lines()
                .filter_map(|line| Some(line.strip_prefix(before)?.strip_suffix(after)?.to_owned()))
                .collect::<Vec<_>>()
        },
    );
    let mut forgotten = Vec::new();
    for entry in fs::read_dir(root().join("tests")).expect("tests/") {
        let path = entry.expect("tests/").path();
        let is_test =
            path.extension().is_some_and(|ending| ending == "rs") || path.join("main.rs").exists();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
        if is_test && !named.iter().flatten().any(|other| *other == name) {
            forgotten.push(format!(
                "{}: neither Cargo.toml nor tests/whole.rs names it",
                path.display()
            ));
        }
    }
    report(&forgotten);
}

const BEGIN: &str = "<!-- directives:begin -->\n";
const END: &str = "<!-- directives:end -->";

#[test]
fn readme_holds_the_directive_table() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md");
    let (head, rest) = readme.split_once(BEGIN).expect("README.md has <!-- directives:begin -->");
    let (inside, tail) = rest.split_once(END).expect("README.md has <!-- directives:end -->");
    let table = markdown_table();
    if std::env::var_os("SIXGATE_BLESS").is_some() {
        fs::write(&path, format!("{head}{BEGIN}{table}{END}{tail}")).expect("writable README.md");
    } else {
        let first = table.lines().zip(inside.lines()).find(|(new, old)| new != old);
        let hint = "SIXGATE_BLESS=1 cargo test --test layering writes it";
        assert!(
            inside == table,
            "README.md's directive table is out of date; {hint}\nfirst difference: {first:#?}"
        );
    }
}

#[test]
fn modules_are_found_in_use_lines() {
    assert_eq!(named_modules("use crate::wire::ip::{A, B};"), ["wire"]);
    assert_eq!(named_modules("use crate::{buf::{PacketBuf, X}, time::Now};"), ["buf", "time"]);
    assert_eq!(named_modules("fn f(a: crate::sys::X, b: crate::time::Now)"), ["sys", "time"]);
}
