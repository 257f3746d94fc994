//! PUSH_UPDATE: the server changes tunnel options of a running connection [7.4].
//!
//! ```text
//! PUSH_UPDATE,-route,?dns server 1 address 10.8.0.1,-?block-ipv6,route 10.1.0.0 255.255.0.0
//!             │      └ may be left out               └ both         └ replaces all earlier routes
//!             └ remove
//! ```
//!
//! Works on the list of options the server has pushed so far; what the list comes to is decided in
//! `settings`. The file's own options stay in any case: they are not the server's to take away.

use super::pushed::{self, Keepalive, PushError};
use crate::config::option::TunnelOption;
use crate::config::{ClientRole, FilterAction};
use crate::limits::MAX_PUSHED_ROUTES;

/// What may be changed; anything else means that the server wants a new connection.
const UPDATABLE: [&str; 14] = [
    "block-ipv6",
    "block-outside-dns",
    "dhcp-option",
    "dns",
    "ifconfig",
    "ifconfig-ipv6",
    "keepalive",
    "redirect-gateway",
    "route",
    "route-gateway",
    "route-ipv6",
    "route-metric",
    "topology",
    "tun-mtu",
];
/// Of these there can be many: the first one in an update replaces all there were.
const LISTS: [&str; 5] = ["dhcp-option", "dns", "redirect-gateway", "route", "route-ipv6"];

/// A complete update, applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Updated {
    /// The server's options from now on.
    pub(super) options: Vec<TunnelOption>,
    /// `keepalive`, when it changes; the default when it was removed.
    pub(super) keepalive: Option<Keepalive>,
    /// Optional parts that were left out, for the log.
    pub(super) unused: Vec<String>,
}

/// One option with its prefix taken off.
struct Change<'a> {
    text: &'a str,
    remove: bool,
    optional: bool,
}

/// Applies the parts of a complete update to what was pushed before. On an error nothing counts.
pub(super) fn apply(
    before: &[TunnelOption],
    update: &[String],
    role: &ClientRole,
) -> Result<Updated, PushError> {
    let mut updated = Updated { options: before.to_vec(), keepalive: None, unused: Vec::new() };
    let mut replaced = Vec::new();
    for text in update {
        let change = Change::parse(text)?;
        match pushed::filter(role, change.text) {
            FilterAction::Accept => updated.change(&change, role.no_pull, &mut replaced)?,
            FilterAction::Ignore => {}
            FilterAction::Reject => return Err(pushed::rejected(change.text)),
        }
    }
    Ok(updated)
}

impl<'a> Change<'a> {
    fn parse(whole: &'a str) -> Result<Self, PushError> {
        let whole = whole.trim_start();
        let (remove, rest) = match whole.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, whole),
        };
        let (optional, text) = match rest.strip_prefix('?') {
            Some(text) => (true, text),
            None => (false, rest),
        };
        if text.is_empty() || text.starts_with(['-', '?', ' ']) {
            let whole = whole.escape_debug();
            return Err(PushError(format!("the server sends the malformed update '{whole}'")));
        }
        Ok(Self { text, remove, optional })
    }
}

impl Updated {
    fn change(
        &mut self,
        change: &Change<'_>,
        no_pull: bool,
        replaced: &mut Vec<&'static str>,
    ) -> Result<(), PushError> {
        let words = pushed::words(change.text)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = match words.first() {
            Some(&"redirect-private") => "redirect-gateway",
            Some(name) => name,
            None => return Err(pushed::bad(change.text)),
        };
        if let (false, Ok(Some(option @ TunnelOption::Delegated(_)))) =
            (change.remove, TunnelOption::parse(&words))
        {
            self.options.retain(|option| !matches!(option, TunnelOption::Delegated(_)));
            self.options.push(option);
            return Ok(());
        }
        let Some(name) = UPDATABLE.into_iter().find(|known| *known == name) else {
            let text = change.text.escape_debug();
            return self.or_leave_out(
                change,
                format!("the server changes '{text}', which takes a new connection"),
            );
        };
        if name == "keepalive" {
            let mut keepalive = Keepalive::default();
            if !change.remove && !keepalive.take(&words) {
                return self.or_leave_out(change, pushed::bad(change.text).0);
            }
            self.keepalive = Some(keepalive);
            return Ok(());
        }
        // About Windows.
        if name == "block-outside-dns" {
            return Ok(());
        }
        let option = match TunnelOption::parse(&words) {
            _ if change.remove => None,
            Ok(Some(option)) if no_pull && option.is_routing() => return Ok(()),
            Ok(Some(option)) => Some(option),
            Ok(None) | Err(_) => return self.or_leave_out(change, pushed::bad(change.text).0),
        };
        let is_list = LISTS.contains(&name);
        if change.remove || !is_list || !replaced.contains(&name) {
            self.options.retain(|option| option.name() != name);
        }
        if is_list && !replaced.contains(&name) {
            replaced.push(name);
        }
        if self.options.len() >= MAX_PUSHED_ROUTES {
            let limit = MAX_PUSHED_ROUTES;
            return Err(PushError(format!("the server pushes more than {limit} options")));
        }
        self.options.extend(option);
        Ok(())
    }

    fn or_leave_out(&mut self, change: &Change<'_>, reason: String) -> Result<(), PushError> {
        if change.optional {
            self.unused.push(change.text.to_owned());
            Ok(())
        } else {
            Err(PushError(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::wire::message::Message;

    fn option(line: &str) -> TunnelOption {
        TunnelOption::parse(&line.split(' ').collect::<Vec<_>>()).unwrap().unwrap()
    }

    fn update_for(role: &ClientRole, before: &[&str], update: &str) -> Result<Updated, PushError> {
        let before: Vec<_> = before.iter().map(|line| option(line)).collect();
        let Message::PushUpdate(options) = Message::parse(&format!("PUSH_UPDATE,{update}")) else {
            panic!("{update}")
        };
        apply(&before, &options.options, role)
    }

    fn update(before: &[&str], update: &str) -> Result<Updated, PushError> {
        update_for(&ClientRole::default(), before, update)
    }

    const BEFORE: [&str; 5] = [
        "ifconfig 10.8.0.2 10.8.0.1",
        "route 10.1.0.0 255.255.0.0",
        "route 10.2.0.0 255.255.0.0",
        "redirect-gateway def1",
        "dns server 1 address 10.8.0.1",
    ];

    #[test]
    fn another_network_is_delegated_and_other_variables_stay() {
        let stable = "setenv-safe ifconfig_ipv6_stable fd00:6::2/64";
        let before = [stable, "setenv-safe delegated_ipv6 2001:db8:a:10::/60"];
        let after = update(&before, "setenv-safe delegated_ipv6 2001:db8:b:10::/60").unwrap();
        let expected = [stable, "setenv-safe delegated_ipv6 2001:db8:b:10::/60"];
        assert_eq!(after.options, expected.map(option));
        assert!(update(&before, "setenv-safe other 1").is_err());
    }

    #[test]
    fn single_options_are_replaced_and_lists_start_over() {
        let after = update(
            &BEFORE,
            "ifconfig 10.8.0.9 10.8.0.1,route 10.3.0.0 255.255.0.0,route 10.4.0.0 255.255.0.0,tun-mtu 1400",
        )
        .unwrap();
        let expected = [
            "redirect-gateway def1",
            "dns server 1 address 10.8.0.1",
            "ifconfig 10.8.0.9 10.8.0.1",
            "route 10.3.0.0 255.255.0.0",
            "route 10.4.0.0 255.255.0.0",
            "tun-mtu 1400",
        ];
        assert_eq!(after.options, expected.map(option));
    }

    #[test]
    fn removal_takes_all_of_a_kind() {
        let after = update(&BEFORE, "-route,-redirect-private,-?block-ipv6,-topology").unwrap();
        assert_eq!(after.options, [option(BEFORE[0]), option(BEFORE[4])]);
        // First away with all, then new ones that add up.
        let after = update(&BEFORE, "-route, route 10.5.0.1, route 10.6.0.1").unwrap();
        assert_eq!(after.options.iter().filter(|option| option.name() == "route").count(), 2);
    }

    #[test]
    fn what_cannot_be_updated_means_a_new_connection_unless_it_is_optional() {
        for change in ["cipher AES-256-GCM", "-cipher", "peer-id 4", "ifconfig 10.8.0.2", "route x"]
        {
            assert!(update(&BEFORE, change).is_err(), "{change}");
        }
        let after = update(&BEFORE, "?cipher AES-256-GCM,-?peer-id,?route x").unwrap();
        assert_eq!((after.options.len(), after.unused.len()), (BEFORE.len(), 3));
    }

    #[test]
    fn malformed_prefixes_are_refused() {
        for change in ["-", "?", "-?", "?-route", "--route", "??route", "- route", "-?-route"] {
            let error = update(&BEFORE, change).unwrap_err().0;
            assert!(error.contains("malformed"), "{change}: {error}");
        }
    }

    #[test]
    fn keepalive_filters_and_nopull() {
        let after = update(&BEFORE, "keepalive 5 20").unwrap().keepalive.unwrap();
        assert_eq!(
            (after.ping, after.silence),
            (Some(Duration::from_secs(5)), Some(Duration::from_secs(20)))
        );
        assert_eq!(update(&BEFORE, "-keepalive").unwrap().keepalive, Some(Keepalive::default()));
        let role = ClientRole {
            no_pull: true,
            filters: vec![
                (FilterAction::Ignore, "tun-mtu".to_owned()),
                (FilterAction::Reject, "topology".to_owned()),
            ],
            ..ClientRole::default()
        };
        let after =
            update_for(&role, &["ifconfig 10.8.0.2 10.8.0.1"], "route 10.1.0.0,tun-mtu 1300");
        assert_eq!(after.unwrap().options.len(), 1);
        assert!(update_for(&role, &[], "topology subnet").is_err());
    }

    #[test]
    fn rubbish_never_panics_and_never_changes_anything_by_halves() {
        let pieces = [
            "-",
            "?",
            "route",
            " ",
            "10.0.0.0",
            "255.0.0.0",
            "dns",
            "\"",
            "\\",
            "ifconfig",
            "::/0",
            "route-ipv6",
            "keepalive",
            "99999999999",
            "redirect-gateway",
            "def1",
            "é",
        ];
        let mut state = 7_u32;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % bound
        };
        for _ in 0..20_000 {
            let count = 1 + below(4);
            let rubbish: Vec<String> = (0..count)
                .map(|_| (0..below(6)).map(|_| pieces[below(pieces.len())]).collect())
                .collect();
            let before: Vec<_> = BEFORE.iter().map(|line| option(line)).collect();
            if let Ok(after) = apply(&before, &rubbish, &ClientRole::default()) {
                assert!(after.options.len() <= before.len() + count);
            }
        }
    }
}
