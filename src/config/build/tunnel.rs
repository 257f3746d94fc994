//! Tunnel options of a client's file, and what it takes of the server's: `route`, `redirect-gateway`,
//! `dns`, …, `pull-filter` [7.3].

use super::Build;
use crate::config::FilterAction;
use crate::config::option::TunnelOption;
use crate::limits::MIN_TUN_MTU;

/// All tunnel options, in order. The MTU is the device's and read there.
pub(super) fn options(b: &mut Build<'_>) -> Vec<TunnelOption> {
    let mut options = Vec::new();
    for line in b.source.lines() {
        if !TunnelOption::NAMES.contains(&line.name.as_str()) || line.name == "tun-mtu" {
            continue;
        }
        let words: Vec<&str> =
            core::iter::once(&line.name).chain(&line.args).map(String::as_str).collect();
        match TunnelOption::parse(&words) {
            Ok(option) => options.extend(option),
            Err(error) => b.error(line, error),
        }
    }
    check(b, &options);
    options
}

/// What does not go together.
fn check(b: &mut Build<'_>, options: &[TunnelOption]) {
    let has_v6 = options.iter().any(|option| matches!(option, TunnelOption::IfconfigV6(..)));
    if let Some(line) = b.line("tun-mtu")
        && has_v6
        && line.arg(0).and_then(|mtu| mtu.parse::<u16>().ok()).is_some_and(|mtu| mtu < MIN_TUN_MTU)
    {
        b.error(line, format!("`ifconfig-ipv6` needs {MIN_TUN_MTU} or more"));
    }
    if let Some(line) = b.line("ifconfig").filter(|line| line.arg(0) == line.arg(1)) {
        b.error(line, "both ends have the same address");
    }
}

/// `pull-filter`.
pub(super) fn filters(b: &mut Build<'_>) -> Vec<(FilterAction, String)> {
    let mut filters = Vec::new();
    for line in b.source.all("pull-filter") {
        let action = match line.arg(0) {
            Some("accept") => FilterAction::Accept,
            Some("ignore") => FilterAction::Ignore,
            Some("reject") => FilterAction::Reject,
            _ => {
                b.error(line, "the first argument is `accept`, `ignore` or `reject`");
                continue;
            }
        };
        let text = line.arg(1).unwrap_or_default().trim_start();
        if text.is_empty() && action == FilterAction::Reject {
            b.error(line, "an empty text begins every option, so that no server would ever do");
        }
        filters.push((action, text.to_owned()));
    }
    filters
}
