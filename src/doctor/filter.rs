//! Whether a packet filter lets a UDP port in, as far as its rules' text tells: `nft list ruleset`
//! (nftables, OpenWrt's firewall4) or `iptables-save` (releases before 22.03).
//!
//! A reading by eye, not a simulation: chains are followed from `input`, conditions other than the
//! port are taken to hold. A filter that refuses and never names the port is the mistake looked for.

/// Chains followed at most: rules may call each other in a circle.
const MAX_CHAINS: usize = 64;

/// Whether the port is open; `None` without rules to go by.
pub fn allows(rules: &str, port: u16) -> Option<bool> {
    if rules.contains("*filter") {
        return Some(
            !iptables_refuses(rules) || rules.lines().any(|line| opens_iptables(line, port)),
        );
    }
    let bases = chains(rules).filter(|(_, body)| body.contains("hook input"));
    let bases: Vec<_> = bases.collect();
    if bases.is_empty() {
        return None;
    }
    // Each base chain has a say: a packet must pass all of them.
    Some(bases.into_iter().all(|(name, body)| {
        let reached = reach(rules, name, body);
        let mut lines = reached.iter().flat_map(|body| body.lines()).map(str::trim);
        let refuses = lines.clone().any(refuses_nft);
        !refuses || lines.any(|line| opens_nft(line, port))
    }))
}

/// `chain NAME { ... }` of an nft listing.
fn chains(rules: &str) -> impl Iterator<Item = (&str, &str)> {
    rules.split("\tchain ").skip(1).filter_map(|text| {
        let (name, rest) = text.split_once(" {")?;
        Some((name.trim(), rest.split("\n\t}").next()?))
    })
}

/// The bodies of a chain and of all those it calls.
fn reach<'a>(rules: &'a str, name: &'a str, body: &'a str) -> Vec<&'a str> {
    let (mut names, mut bodies, mut next) = (vec![name], vec![body], 0);
    while let Some(body) = bodies.get(next).copied() {
        next += 1;
        let words: Vec<&str> = body.split([' ', '\t', '\n', ',', '}']).collect();
        for pair in words.windows(2) {
            let &[verb, target] = pair else { continue };
            let new = matches!(verb, "jump" | "goto") && !names.contains(&target);
            if new && names.len() < MAX_CHAINS {
                names.push(target);
                bodies
                    .extend(chains(rules).find(|(name, _)| *name == target).map(|(_, body)| body));
            }
        }
    }
    bodies
}

/// A policy, or a rule without conditions.
fn refuses_nft(line: &str) -> bool {
    line.contains("hook input") && line.contains("policy drop")
        || ["drop", "reject"].iter().any(|verb| {
            line.starts_with(verb) || line.starts_with("counter") && line.contains(verb)
        })
}

fn opens_nft(line: &str, port: u16) -> bool {
    let Some((head, rest)) = line.split_once("dport ") else { return false };
    // `udp dport 1194`, `meta l4proto { tcp, udp } th dport 1194`.
    let udp = head.contains("udp") || head.ends_with("th ");
    let (set, verdict) = match rest.strip_prefix("{ ") {
        Some(set) => set.split_once('}').unwrap_or((set, "")),
        None => rest.split_once(' ').unwrap_or((rest, "")),
    };
    udp && verdict.contains("accept") && set.split(',').any(|item| within(item.trim(), '-', port))
}

fn iptables_refuses(rules: &str) -> bool {
    rules.lines().any(|line| {
        line.starts_with(":INPUT DROP")
            || line.starts_with("-A INPUT -j ") && (line.contains("DROP") || line.contains("eject"))
            || line.starts_with("-A INPUT -j REJECT")
    })
}

fn opens_iptables(line: &str, port: u16) -> bool {
    let Some((head, rest)) = line.split_once("dport") else { return false };
    let list = rest.trim_start_matches('s').trim_start().split(' ').next().unwrap_or("");
    head.contains("-p udp")
        && line.contains("-j ACCEPT")
        && list.split(',').any(|item| within(item, ':', port))
}

/// One port, or a range.
fn within(item: &str, dash: char, port: u16) -> bool {
    let (low, high) = item.split_once(dash).unwrap_or((item, item));
    matches!((low.parse::<u16>(), high.parse::<u16>()), (Ok(low), Ok(high)) if (low..=high).contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What firewall4 writes, shortened.
    fn openwrt(rule: &str) -> String {
        format!(
            "table inet fw4 {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy drop;\n\
             \t\tiif \"lo\" accept comment \"!fw4\"\n\t\tct state vmap {{ established : accept, related : accept }}\n\
             \t\tiifname \"br-lan\" jump input_lan\n\t\tiifname \"wan\" jump input_wan\n\t\tjump handle_reject\n\t}}\n\n\
             \tchain input_lan {{\n\t\tjump accept_from_lan\n\t}}\n\n\
             \tchain input_wan {{\n\t\tmeta nfproto ipv4 udp dport 68 counter accept\n{rule}\t\tjump reject_from_wan\n\t}}\n\n\
             \tchain handle_reject {{\n\t\tmeta l4proto tcp reject with tcp reset\n\t\treject\n\t}}\n}}\n"
        )
    }

    #[test]
    fn nftables_rules_are_read() {
        for (rule, open) in [
            ("", false),
            ("\t\tudp dport 1194 counter packets 0 bytes 0 accept comment \"!fw4\"\n", true),
            ("\t\tudp dport { 53, 1190-1200 } accept\n", true),
            ("\t\tmeta l4proto { tcp, udp } th dport 1194 counter accept\n", true),
            ("\t\tudp dport 1195 accept\n", false),
            ("\t\ttcp dport 1194 accept\n", false),
            ("\t\tudp dport 1194 drop\n", false),
        ] {
            assert_eq!(allows(&openwrt(rule), 1194), Some(open), "{rule}");
        }
        // In a chain that nobody calls it is of no use.
        let stray = openwrt("") + "\tchain stray {\n\t\tudp dport 1194 accept\n\t}\n";
        assert_eq!(allows(&stray, 1194), Some(false));
    }

    #[test]
    fn a_filter_that_refuses_nothing_is_open() {
        let chain = |policy: &str, rule: &str| {
            format!(
                "table inet f {{\n\tchain input {{\n\t\ttype filter hook input priority 0; policy {policy};\n{rule}\t}}\n}}\n"
            )
        };
        assert_eq!(allows(&chain("accept", ""), 1194), Some(true));
        assert_eq!(allows(&chain("accept", "\t\tct state invalid drop\n"), 1194), Some(true));
        assert_eq!(
            allows(&chain("accept", "\t\tcounter packets 1 bytes 2 drop\n"), 1194),
            Some(false)
        );
        assert_eq!(allows(&chain("drop", ""), 1194), Some(false));
        assert_eq!(allows("", 1194), None);
        assert_eq!(allows("table ip nat {\n\tchain post {\n\t\tmasquerade\n\t}\n}\n", 1194), None);
    }

    #[test]
    fn iptables_rules_are_read() {
        let rules = |rule: &str| {
            format!(
                "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n{rule}-A INPUT -j reject\nCOMMIT\n"
            )
        };
        for (rule, open) in [
            ("", false),
            ("-A zone_wan_input -p udp -m udp --dport 1194 -j ACCEPT\n", true),
            ("-A INPUT -p udp -m multiport --dports 53,1190:1200 -j ACCEPT\n", true),
            ("-A INPUT -p tcp -m tcp --dport 1194 -j ACCEPT\n", false),
            ("-A INPUT -p udp -m udp --dport 11 -j ACCEPT\n", false),
        ] {
            assert_eq!(allows(&rules(rule), 1194), Some(open), "{rule}");
        }
        assert_eq!(allows("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", 1194), Some(true));
        assert_eq!(allows("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", 1194), Some(false));
    }

    #[test]
    fn chains_that_call_each_other_end() {
        let rules = "table inet f {\n\tchain input {\n\t\ttype filter hook input priority 0; policy accept;\n\t\tjump a\n\t}\n\
                     \tchain a {\n\t\tjump b\n\t}\n\tchain b {\n\t\tjump a\n\t\tdrop\n\t}\n}\n";
        assert_eq!(allows(rules, 1194), Some(false));
    }
}
