//! What went wrong in other implementations of this protocol, one test for each report: it attacks
//! our engines as the report describes and says what has to happen instead.
//!
//! `opening` is what strangers can reach, `login` the way in, `tunnel` what clients may send, `words`
//! texts and configuration. Reports about software that we have no counterpart of (services and
//! installers of other systems, plugins, proxies, other TLS libraries) come down to this: the
//! directive that would bring the counterpart in is refused.

#[path = "../common/mod.rs"]
mod common;
mod login;
mod opening;
mod tunnel;
mod words;

use common::clients::{SERVER, join, serve};
use common::heap::Counted;
use common::net::Net;
use common::pki::{Identity, Site, Usage};
use sixgate::engine::DropReason;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Somebody who is not the client.
const STRANGER: &str = "203.0.113.66:6666";

fn identity(site: &Site, name: &str) -> Identity {
    site.ca.issue(name, Usage::Client, 2050, 70)
}

fn drops(net: &Net, reason: DropReason) -> u64 {
    net.nodes[0].engine.drops().of(reason)
}

/// Dropped packets of all reasons.
fn all_drops(net: &Net) -> u64 {
    DropReason::ALL.iter().map(|reason| drops(net, *reason)).sum()
}

fn count(net: &Net) -> usize {
    net.nodes[0].engine.clients().len()
}

/// The reports, by the names of their tests here and beside the code.
const REPORTS: &str = "2013_2061 2014_8104 2016_6329 2017_7478 2017_7479 2017_7508 2017_7520 2017_7521 \
    2017_7522 2017_12166 2018_9336 2020_11810 2020_15078 2022_0547 2023_46849 2023_46850 2024_4877 \
    2024_5594 2024_24974 2024_27459 2024_27903 2024_28882 2025_2704 2025_12106 2025_13086 2025_13751 \
    2026_11771 2026_12932 2026_12996 2026_13117 2026_13122 2026_13379 2026_13698 2026_35058 2026_40215 \
    2026_63649 2026_63650";

#[test]
fn every_report_has_its_test() {
    fn gather(folder: &std::path::Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, text);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    gather(&root.join("tests/lessons"), &mut text);
    gather(&root.join("src"), &mut text);
    for report in REPORTS.split_whitespace() {
        // Several reports of one kind share a test: `fn cve_2018_9336_2024_4877_...`.
        let mut names = text.lines().filter(|line| line.trim_start().starts_with("fn cve_"));
        assert!(names.any(|name| name.contains(&format!("_{report}_"))), "CVE {report}");
    }
}
