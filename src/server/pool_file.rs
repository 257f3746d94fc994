//! The text of `ifconfig-pool-persist`: which name had which addresses [9.3].
//!
//! ```text
//! # comment            ; comment
//! laptop,10.8.0.2,fd00::1000      either address may be empty, the last comma may be missing
//! phone,,fd00::1001
//! ```
//!
//! Stock servers break at names with commas; here the addresses are taken from the end of a line,
//! so that such names come back whole. A line that says nothing useful is reported with its number
//! and costs nobody else anything. Reading and writing the file is the shell's business.

use core::fmt;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::server::pool::{ImportError, Lease, Pools, Remembered};

/// Longest line that can be one: a name of 4 bytes per character and two addresses.
const MAX_LINE: usize = 512;

/// What is wrong with a line, or with one of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Longer than any line that was written, or not text.
    NotText,
    /// No name before the first comma.
    NoName,
    /// A name without any address.
    NoAddress,
    /// What should be an IPv4 address is none.
    BadV4,
    /// What should be an IPv6 address is none.
    BadV6,
    /// The IPv4 address is not in the pool.
    V4OutOfRange,
    /// The IPv6 address is not in the pool.
    V6OutOfRange,
    /// The IPv4 address is another name's, or the name has one already.
    V4Taken,
    /// The IPv6 address is another name's, or the name has one already.
    V6Taken,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotText => "not a line of text",
            Self::NoName => "no name",
            Self::NoAddress => "no address",
            Self::BadV4 => "not an IPv4 address",
            Self::BadV6 => "not an IPv6 address",
            Self::V4OutOfRange => "the IPv4 address is outside of the pool",
            Self::V6OutOfRange => "the IPv6 address is outside of the pool",
            Self::V4Taken => "the IPv4 address is taken, or the name occurs twice",
            Self::V6Taken => "the IPv6 address is taken, or the name occurs twice",
        })
    }
}

/// Takes over what the file says, and reports what it could not use, by line.
pub fn import(pools: &mut Pools, file: &[u8], fixed: bool) -> Vec<(usize, Fault)> {
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(file.split(|byte| *byte == b'\n')) {
        let (entry, found) = parse(line.strip_suffix(b"\r").unwrap_or(line));
        faults.extend(found.map(|fault| (number, fault)));
        let Some(entry) = entry else { continue };
        let (v4, v6) = pools.import(&entry, fixed);
        let v4 = v4.map_err(|error| match error {
            ImportError::OutOfRange => Fault::V4OutOfRange,
            ImportError::Taken => Fault::V4Taken,
        });
        let v6 = v6.map_err(|error| match error {
            ImportError::OutOfRange => Fault::V6OutOfRange,
            ImportError::Taken => Fault::V6Taken,
        });
        faults.extend([v4, v6].into_iter().filter_map(Result::err).map(|fault| (number, fault)));
    }
    faults
}

/// Reads one line; of a damaged one there may be both an entry and a fault.
fn parse(line: &[u8]) -> (Option<Remembered>, Option<Fault>) {
    if matches!(line.first(), None | Some(b'#' | b';')) {
        return (None, None);
    }
    let text = core::str::from_utf8(line).ok().filter(|text| text.len() <= MAX_LINE);
    let Some(text) = text.filter(|text| !text.contains(char::is_control)) else {
        return (None, Some(Fault::NotText));
    };
    let Some((head, last)) = text.rsplit_once(',') else {
        return (None, Some(Fault::NoAddress));
    };
    // Two fields: the older form without IPv6. A name with a comma needs all three.
    let (name, v4, v6) = match head.rsplit_once(',') {
        Some((name, v4)) if last.parse::<Ipv4Addr>().is_err() => (name, v4, last),
        Some(_) | None => (head, last, ""),
    };
    if name.is_empty() {
        return (None, Some(Fault::NoName));
    }
    let lease = Lease { v4: v4.parse().ok(), v6: v6.parse::<Ipv6Addr>().ok() };
    let fault = if !v4.is_empty() && lease.v4.is_none() {
        Some(Fault::BadV4)
    } else if !v6.is_empty() && lease.v6.is_none() {
        Some(Fault::BadV6)
    } else if lease.is_empty() {
        Some(Fault::NoAddress)
    } else {
        None
    };
    let entry = (!lease.is_empty()).then(|| Remembered { name: name.to_owned(), lease });
    (entry, fault)
}

/// The whole file. Names that it cannot hold are left out: their addresses last as long as this
/// process does.
pub fn export(pools: &Pools) -> String {
    let mut text = String::new();
    for Remembered { name, lease } in pools.export() {
        let unfit = name.is_empty() || name.starts_with(['#', ';']);
        if unfit || name.contains(char::is_control) {
            continue;
        }
        let v4 = lease.v4.map_or_else(String::new, |v4| v4.to_string());
        let v6 = lease.v6.map_or_else(String::new, |v6| v6.to_string());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name},{v4},{v6}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{PoolV4, PoolV6, Topology};

    fn pools() -> Pools {
        let v4 = PoolV4::of_network("10.8.0.0/24".parse().unwrap(), Topology::Subnet);
        Pools::new(Some(v4), "fd00::/64".parse().ok().map(PoolV6::of_prefix), 1000)
    }

    fn lease(pools: &mut Pools, name: &str) -> Lease {
        pools.lease(name, true, Lease::default())
    }

    #[test]
    fn files_of_stock_servers_are_read() {
        let mut pools = pools();
        let file =
            b"# comment\n\n;x\r\na,10.8.0.4,fd00::1002\r\nb,10.8.0.5\nc,,fd00::1005\nd,10.8.0.9,";
        assert_eq!(import(&mut pools, file, false), []);
        let text = "a,10.8.0.4,fd00::1002\nb,10.8.0.5,\nc,,fd00::1005\nd,10.8.0.9,\n";
        assert_eq!(export(&pools), text);
        assert_eq!(lease(&mut pools, "b").v4, Some(Ipv4Addr::new(10, 8, 0, 5)));
    }

    #[test]
    fn damaged_lines_are_named_and_cost_nothing_else() {
        let mut pools = pools();
        let mut file = b"a,10.8.0.4,fd00::1002\nno comma\n,10.8.0.5,\nb,,\nc,x,fd00::1003\n\
            d,10.8.0.6,x\ne,10.9.0.1,fd00::1004\nf,10.8.0.7,fd01::1\ng,10.8.0.4,fd00::1005\n\
            a,10.8.0.8,fd00::1002\n\xff,10.8.0.9,\n"
            .to_vec();
        file.extend([b'x'; 600]);
        file.extend(b"\nz,10.8.0.20,fd00::1020\n");
        let faults = import(&mut pools, &file, false);
        let expected = [
            (2, Fault::NoAddress),
            (3, Fault::NoName),
            (4, Fault::NoAddress),
            (5, Fault::BadV4),
            (6, Fault::BadV6),
            (7, Fault::V4OutOfRange),
            (8, Fault::V6OutOfRange),
            (9, Fault::V4Taken),
            (10, Fault::V4Taken),
            (10, Fault::V6Taken),
            (11, Fault::NotText),
            (12, Fault::NotText),
        ];
        assert_eq!(faults, expected);
        let text = "a,10.8.0.4,fd00::1002\nc,,fd00::1003\nd,10.8.0.6,\ne,,fd00::1004\n\
            f,10.8.0.7,\ng,,fd00::1005\nz,10.8.0.20,fd00::1020\n";
        assert_eq!(export(&pools), text);
    }

    #[test]
    fn names_that_do_not_fit_are_left_out() {
        let mut pools = pools();
        for name in ["", "#x", ";x", "a\nb", "a,b", "c,10.8.0.9"] {
            lease(&mut pools, name);
        }
        let text = export(&pools);
        assert_eq!(text, "a,b,10.8.0.6,fd00::1004\nc,10.8.0.9,10.8.0.7,fd00::1005\n");
        let mut again = super::tests::pools();
        assert_eq!(import(&mut again, text.as_bytes(), false), []);
        assert_eq!(export(&again), text);
    }

    fn random(seed: u64) -> impl FnMut(usize) -> usize {
        let mut state = seed;
        move |bound| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % bound
        }
    }

    /// Runs of a server that end at any time, against what each name had last.
    #[test]
    fn every_name_has_its_addresses_in_the_next_run() {
        let mut next = random(7);
        let mut file = String::new();
        let mut model: BTreeMap<String, Lease> = BTreeMap::new();
        for _ in 0..200 {
            let mut pools = pools();
            assert_eq!(import(&mut pools, file.as_bytes(), false), []);
            let mut held: BTreeMap<String, Lease> = BTreeMap::new();
            for _ in 0..next(30) {
                let name = format!("n,{}", next(60));
                match held.remove(&name) {
                    Some(lease) => pools.release(lease),
                    None => {
                        let lease = lease(&mut pools, &name);
                        let before = model.entry(name.clone()).or_insert(lease);
                        assert_eq!(*before, lease, "{name}");
                        held.insert(name, lease);
                    }
                }
            }
            file = export(&pools);
            let lines = model.iter().map(|(name, lease)| {
                format!("{name},{},{}\n", lease.v4.unwrap(), lease.v6.unwrap())
            });
            assert_eq!(file, lines.collect::<String>());
        }
    }

    #[test]
    fn a_file_cut_or_changed_anywhere_keeps_its_other_lines() {
        let mut before = pools();
        for n in 0..20 {
            lease(&mut before, &format!("n{n}"));
        }
        let file = export(&before).into_bytes();
        for end in 0..=file.len() {
            let mut pools = pools();
            let kept = file.get(..end).unwrap();
            import(&mut pools, kept, false);
            let whole = kept.iter().filter(|byte| **byte == b'\n').count();
            assert!(pools.export().len() >= whole);
        }
        let mut next = random(9);
        for _ in 0..2000 {
            let mut damaged = file.clone();
            let at = next(damaged.len());
            if let Some(byte) = damaged.get_mut(at) {
                *byte = next(256) as u8;
            }
            let mut pools = pools();
            import(&mut pools, &damaged, false);
            // One byte can join two lines, or give one name or address of a line to another.
            let same = pools.export().iter().filter(|row| before.export().contains(row)).count();
            assert!(same >= 17, "{same} after byte {at}");
        }
    }
}
