//! Scripts of one line each, run for real.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::*;
use crate::config::hooks::PasswordBy;
use crate::engine::HookInput;

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("sixgate-hooks-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn script(&self, name: &str, text: &str) -> Program {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Program { path, arguments: vec!["a b".into(), "$(c)".into()] }
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    fn temporary(&self) -> usize {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        fs::read_dir(&self.0)
            .unwrap()
            .map(name)
            .filter(|n| Path::new(n).extension().is_some_and(|e| e == "tmp"))
            .count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn request(kind: HookKind, lane: &str) -> HookRequest {
    HookRequest {
        ticket: None,
        kind,
        lane: lane.into(),
        arguments: Vec::new(),
        environment: Environment::new(),
        input: HookInput::Nothing,
    }
}

fn success() -> HookOutcome {
    HookOutcome::Success { settings: String::new() }
}

fn failure(reason: &str) -> HookOutcome {
    HookOutcome::Failure { reason: reason.into() }
}

fn hooks(folder: &Folder, set: impl FnOnce(&mut config::Hooks), limit: u64) -> Hooks {
    let mut config = config::Hooks { folder: Some(folder.0.clone()), ..config::Hooks::default() };
    set(&mut config);
    Hooks::new(config, Duration::from_millis(limit), Access::default())
}

#[test]
fn arguments_and_variables_arrive_as_they_are_and_nothing_else_does() {
    let folder = Folder::new("env");
    let out = folder.0.join("out");
    let program = folder.script(
        "up",
        &format!(
            "exec > {}; printf '[%s]' \"$@\"; tr '\\0' '\\n' < /proc/self/environ; cat",
            out.display()
        ),
    );
    let mut hooks = hooks(
        &folder,
        |config| {
            config.up = Some(program);
            config.variables = vec![("FOO".into(), "bar baz".into()), ("A".into(), "1".into())];
        },
        10_000,
    );
    let mut request = request(HookKind::Up, "");
    request.arguments = vec!["tun0".into(), "*".into()];
    request.environment.set("A", "2");
    assert_eq!(hooks.run_to_end(request), success());
    let text = folder.text("out");
    let (arguments, variables) = text.split_at(text.rfind(']').unwrap() + 1);
    assert_eq!(arguments, "[a b][$(c)][tun0][*]");
    let mut variables: Vec<_> =
        variables.lines().filter(|v| !v.starts_with("PWD=") && !v.starts_with("_=")).collect();
    variables.sort_unstable();
    assert_eq!(variables, ["A=2", "FOO=bar baz", "script_type=up"]);
    assert!(hooks.is_idle());
}

#[test]
fn a_status_other_than_0_a_signal_or_no_program_is_a_failure() {
    let folder = Folder::new("status");
    for text in ["exit 1", "exit 2", "kill -9 $$"] {
        let program = folder.script("up", text);
        let mut hooks = hooks(&folder, |config| config.up = Some(program), 10_000);
        assert_eq!(hooks.run_to_end(request(HookKind::Up, "")), failure(""), "{text}");
    }
    let mut hooks = hooks(
        &folder,
        |config| {
            config.up = Some(Program { path: "/nonexistent".into(), arguments: Vec::new() });
        },
        10_000,
    );
    assert_eq!(hooks.run_to_end(request(HookKind::Up, "")), failure(""));
    // Not configured: nothing speaks against it.
    assert_eq!(hooks.run_to_end(request(HookKind::Down, "")), success());
}

#[test]
fn a_script_that_does_not_end_is_ended_with_all_it_has_started() {
    let folder = Folder::new("limit");
    let out = folder.0.join("out");
    let program =
        folder.script("up", &format!("(sleep 1; echo late > {}) & sleep 60", out.display()));
    let mut hooks = hooks(&folder, |config| config.up = Some(program), 200);
    let start = std::time::Instant::now();
    assert_eq!(hooks.run_to_end(request(HookKind::Up, "")), failure(""));
    assert!(start.elapsed() < Duration::from_secs(10));
    hooks.finish();
    assert!(hooks.is_idle());
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(folder.text("out"), "");
}

#[test]
fn lanes_keep_their_order_and_do_not_wait_for_each_other() {
    let folder = Folder::new("lanes");
    let out = folder.0.join("out");
    let text = format!("[ $5 = slow ] && sleep 1; echo $3 $4 >> {}", out.display());
    let program = folder.script("learn", &text);
    let mut hooks = hooks(&folder, |config| config.learn_address = Some(program), 10_000);
    for (lane, word) in [("a", "1"), ("a", "2"), ("b", "1"), ("a", "3"), ("b", "2")] {
        let mut request = request(HookKind::LearnAddress, lane);
        request.arguments = vec![lane.into(), word.into()];
        request.arguments.extend((lane == "a" && word == "1").then(|| "slow".into()));
        assert!(hooks.request(request).is_none());
    }
    hooks.finish();
    assert_eq!(folder.text("out"), "b 1\nb 2\na 1\na 2\na 3\n");
}

#[test]
fn only_so_many_run_at_once() {
    let folder = Folder::new("many");
    let program = folder.script("learn", "sleep 0.2");
    let mut hooks = hooks(&folder, |config| config.learn_address = Some(program), 10_000);
    for lane in 0..3 * MAX_HOOKS {
        hooks.request(request(HookKind::LearnAddress, &lane.to_string()));
    }
    let clock = Clock::new();
    while !hooks.is_idle() {
        hooks.serve(clock.now().mono);
        assert!(hooks.jobs.len() <= MAX_HOOKS);
        std::thread::sleep(NAP);
    }
    hooks.waiting = (0..MAX_HOOK_QUEUE).map(|_| request(HookKind::LearnAddress, "")).collect();
    let refused =
        hooks.request(HookRequest { ticket: Some(7), ..request(HookKind::LearnAddress, "") });
    assert!(matches!(
        refused,
        Some(Reply::HookDone { ticket: 7, outcome: HookOutcome::Failure { .. } })
    ));
}

fn login(folder: &Folder, text: &str, by: PasswordBy) -> HookOutcome {
    let program = folder.script("verify", text);
    let mut hooks = hooks(
        folder,
        |config| {
            config.auth_user_pass_verify = Some(program);
            config.password_by = by;
        },
        1500,
    );
    let mut request = request(HookKind::AuthUserPassVerify, "x");
    let password = Zeroizing::new("se cret\"$".to_owned());
    request.environment.set("username", "jo e");
    request.input = HookInput::Credentials { username: "jo e".into(), password };
    let outcome = hooks.run_to_end(request);
    hooks.finish();
    drop(hooks);
    assert_eq!(folder.temporary(), 0, "{text}");
    outcome
}

#[test]
fn a_password_goes_the_way_that_is_configured() {
    let folder = Folder::new("password");
    let file = r#"[ "$(cat $3)" = "$(printf 'jo e\nse cret"$')" ] && [ "$(stat -c %a $3)" = 600 ]"#;
    assert_eq!(login(&folder, file, PasswordBy::File), success());
    assert_eq!(login(&folder, r#"[ -z "$password" ]"#, PasswordBy::File), success());
    let variable = r#"[ "$password" = 'se cret"$' ] && [ "$username" = "jo e" ] && [ $# = 2 ]"#;
    assert_eq!(login(&folder, variable, PasswordBy::Variable), success());
    assert_eq!(
        login(&folder, r#"[ -z "$password" ] && [ $# = 2 ]"#, PasswordBy::Nothing),
        success()
    );
}

#[test]
fn a_login_can_be_answered_later_and_refused_in_words() {
    let folder = Folder::new("later");
    let by = PasswordBy::Nothing;
    assert_eq!(
        login(&folder, "(sleep 0.3; printf 1 > $auth_control_file) & exit 2", by),
        success()
    );
    let no = "printf 'too late\\nmore' > $auth_failed_reason_file; (sleep 0.3; printf 0 > $auth_control_file) & exit 2";
    assert_eq!(login(&folder, no, by), failure("too late"));
    assert_eq!(
        login(&folder, "printf 'go away\\033' > $auth_failed_reason_file; exit 1", by),
        failure("go away")
    );
    assert_eq!(login(&folder, "printf 1 > $auth_control_file; exit 2", by), success());
    assert_eq!(login(&folder, "exit 2", by), failure(""), "never answered");
}

#[test]
fn what_a_waiting_client_is_told() {
    let folder = Folder::new("pending");
    let text = "printf '3\\nwebauth\\nWEB_AUTH::https://x\\n' > $auth_pending_file; (sleep 2; printf 1 > $auth_control_file) & exit 2";
    let program = folder.script("verify", text);
    let mut hooks = hooks(&folder, |config| config.auth_user_pass_verify = Some(program), 1000);
    hooks.request(HookRequest { ticket: Some(5), ..request(HookKind::AuthUserPassVerify, "x") });
    let clock = Clock::new();
    let mut replies = Vec::new();
    while !hooks.is_idle() {
        replies.extend(hooks.serve(clock.now().mono));
        std::thread::sleep(NAP);
    }
    let [
        Reply::HookPending { ticket: 5, timeout: 3, method, message },
        Reply::HookDone { ticket: 5, outcome },
    ] = &replies[..]
    else {
        panic!("{replies:?}")
    };
    assert_eq!((method.as_str(), message.as_str()), ("webauth", "WEB_AUTH::https://x"));
    assert_eq!(outcome, &success());
}

#[test]
fn a_client_connect_script_writes_settings() {
    let folder = Folder::new("settings");
    let run = |text: &str| {
        let program = folder.script("connect", text);
        let mut hooks = hooks(&folder, |config| config.client_connect = Some(program), 1000);
        let outcome = hooks.run_to_end(request(HookKind::ClientConnect, "x"));
        drop(hooks);
        assert_eq!(folder.temporary(), 0, "{text}");
        outcome
    };
    let settings = HookOutcome::Success { settings: "push \"x\"\n".into() };
    assert_eq!(run("echo 'push \"x\"' > $3"), settings);
    assert_eq!(run("echo 'push \"x\"' > $client_connect_config_file"), settings);
    assert_eq!(run("echo 'push \"x\"' > $3; exit 1"), failure(""));
    let later = "printf 2 > $client_connect_deferred_file; (sleep 0.3; echo 'push \"x\"' > $3; printf 1 > $client_connect_deferred_file) &";
    assert_eq!(run(later), settings);
    assert_eq!(run("printf 0 > $client_connect_deferred_file"), failure(""));
    assert_eq!(run("printf 2 > $client_connect_deferred_file"), failure(""), "never answered");
}

#[test]
fn dns_is_applied_and_taken_back_as_it_was_pushed() {
    use crate::config::dns::{Dns, DnsServer};
    use crate::engine::TunnelSettings;
    let folder = Folder::new("dns");
    let out = folder.0.join("out");
    let variables = "$script_type [$*] $dev $dns_server_1_address_1 $dns_server_2_address_1";
    let program = folder.script("dns", &format!("echo {variables} >> {}", out.display()));
    let program = Program { arguments: Vec::new(), ..program };
    let mut hooks = hooks(&folder, |config| config.dns_updown = Some(program), 10_000);
    hooks.surroundings().set("dev", "tun0");
    let tunnel = |servers: &[&str], mtu| {
        let server = |address: &&str| DnsServer {
            addresses: vec![(address.parse().unwrap(), None)],
            ..DnsServer::default()
        };
        let mut dns = Dns::default();
        dns.servers = servers.iter().map(server).collect();
        TunnelSettings { dns, mtu, ..TunnelSettings::default() }
    };
    // Nobody waits for it, and a tunnel without a server has nothing to apply.
    for (servers, mtu) in [
        (&["fd00::2"][..], 1500),
        (&["10.8.0.1", "fd00::1"], 1500),
        (&[], 1500),
        (&["fd00::3", "fd00::4"], 1400),
    ] {
        assert!(!hooks.request_up(&tunnel(servers, mtu)));
    }
    hooks.take_down(|| assert!(folder.text("out").ends_with("dns-down [] tun0 fd00::3 fd00::4\n")));
    assert_eq!(
        folder.text("out").lines().collect::<Vec<_>>(),
        [
            "dns-up [] tun0 fd00::2",
            "dns-down [] tun0 fd00::2",
            "dns-up [] tun0 10.8.0.1 fd00::1",
            "dns-down [] tun0 10.8.0.1 fd00::1",
            "dns-up [] tun0 fd00::3 fd00::4",
            "dns-down [] tun0 fd00::3 fd00::4",
        ]
    );
}

/// What was found out about one server says nothing about the next.
#[test]
fn who_is_judged_is_not_told_as_the_one_before() {
    let folder = Folder::new("judged");
    let set = |config: &mut config::Hooks| {
        for (place, name) in [(&mut config.tls_verify, "judge"), (&mut config.ipchange, "note")] {
            *place = Some(folder.script(name, "test \"$tls_id_0\" = \"$expected\""));
        }
    };
    let mut hooks = hooks(&folder, set, 5_000);
    let mut before = Environment::new();
    before.set("tls_id_0", "CN=before");
    hooks.introduce(before);
    for (kind, expected) in [(HookKind::TlsVerify, ""), (HookKind::IpChange, "CN=before")] {
        let mut request = request(kind, "a");
        request.environment.set("expected", expected);
        assert_eq!(hooks.run_to_end(request), success(), "{expected}");
    }
}
