//! Bodies of the fuzz targets of this ring; see `wire::fuzz`.

use crate::engine::{
    ApprovalRequest, ClientInfo, Endpoint, Environment, HookInput, LoginQuestion, PeerId,
};
use crate::manage::console::{Console, Settings};
use crate::manage::{Action, Traffic, View};
use crate::time::{Instant, UnixTime};

/// Lines to the management interface, in pieces of every size, before and after the password: what
/// it answers is whole lines, and it asks only for what a line can ask for.
pub fn console(bytes: &[u8]) {
    let Some((choice, mut rest)) = bytes.split_first() else { return };
    let password = (choice & 1 == 1).then(|| "secret".to_owned().into());
    let settings = Settings {
        server: choice & 2 == 0,
        password,
        log_lines: 10,
        hold: choice & 4 == 4,
        query: true,
    };
    let mut console = Console::new(settings);
    console.connect();
    let view = View {
        now: UnixTime(1_795_456_114),
        mono: Instant::ZERO,
        date: |_| "2026-11-23 17:48:20".to_owned(),
        pid: 7,
        verb: 3,
        clients: vec![client()],
        traffic: Traffic::default(),
    };
    let now = Instant::from_millis(1_000);
    let question = ApprovalRequest {
        ticket: 5,
        client: 4,
        renegotiation: false,
        environment: Environment::new(),
        input: HookInput::Nothing,
    };
    console.ask(&question, 1);
    let (username, password) = (None, None);
    console.ask_login(&LoginQuestion { username, password, challenge: None, dynamic: None });
    let mut said = Vec::new();
    while !rest.is_empty() {
        let piece = (usize::from(choice >> 3) * 7 + 1).min(rest.len()).min(console.room());
        let (piece, later) = rest.split_at_checked(piece).unwrap_or((rest, &[]));
        console.input(piece);
        rest = later;
        while let Some(action) = console.next(now, &view) {
            match action {
                Action::Kick(who) => assert!(who.iter().all(|who| *who == PeerId(3))),
                Action::Halt(who) => assert_eq!(who, PeerId(3)),
                Action::Verb(verb) => assert!(verb <= 15),
                Action::Decide { ticket, .. } | Action::Pend { ticket, .. } => {
                    assert_eq!(ticket, 5);
                }
                Action::Login { username, .. } => assert!(username.len() < 2048),
                Action::Signal(_) => {}
            }
        }
        said.extend_from_slice(console.output());
        console.sent(console.output().len());
        // Closed, or its line is longer than any line.
        if console.is_finished() || (piece.is_empty() && console.room() == 0) {
            break;
        }
    }
    assert!(core::str::from_utf8(&said).is_ok());
}

fn client() -> ClientInfo {
    ClientInfo {
        peer: PeerId(3),
        id: 3,
        common_name: "alice".into(),
        username: String::new(),
        from: Endpoint::new(([192, 0, 2, 7], 40_000).into()),
        v4: Some([10, 8, 0, 6].into()),
        also: Vec::new(),
        v6: None,
        networks: Vec::new(),
        since: 1_795_456_108,
        heard: Instant::from_millis(2_000),
        expires: Some(UnixTime(1_800_000_000)),
        bytes_in: 1,
        bytes_out: 2,
        cipher: "AES-256-GCM",
        version: "2.6".into(),
        platform: "linux".into(),
        reason: String::new(),
    }
}
