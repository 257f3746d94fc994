//! Scripts, which the keeper runs: what goes to and fro about them, and the keeper's list of those that run.
//!
//! The other side says on which occasion, with which arguments, variables and files; which program that
//! is stands in the keeper's configuration. Programs listen to some variables whatever they were written
//! for (`LD_PRELOAD`, `PATH`): only names that OpenVPN gives to scripts are taken from the other side.

use std::fs::File;

use zeroize::Zeroizing;

use super::talk::GARBLED;
use super::transcript::{put, take};
use crate::config::hooks::Hooks;
use crate::engine::{Environment, HookInput, HookKind, HookOutcome, HookRequest};
use crate::limits::{MAX_HOOK_QUEUE, MAX_HOOKS};
use crate::sys::hooks::{Answer, Pending, Task};
use crate::wire::reader::Reader;

/// Kinds of what else a script is told.
const NOTHING: u8 = 0;
const CREDENTIALS: u8 = 1;
const METADATA: u8 = 2;

/// How far a script is.
const RUNS: u8 = 0;
const ENDED: u8 = 1;
const KILLED: u8 = 2;

/// The scripts that run, or whose answer is awaited.
#[derive(Default)]
pub(super) struct Scripts {
    tasks: Vec<(u32, Task)>,
    next: u32,
}

impl Scripts {
    /// Starts a script. Returns its number, and where its output comes from.
    pub(super) fn run(&mut self, config: &Hooks, body: &[u8]) -> Result<(Vec<u8>, File), String> {
        let running = self.tasks.iter_mut().map(|(_, task)| task.runs()).filter(|runs| *runs);
        // The other side waits before it comes to that.
        if running.count() > MAX_HOOKS || self.tasks.len() > MAX_HOOK_QUEUE {
            return Err("too many scripts".to_owned());
        }
        let request = parse_request(body, config).ok_or(GARBLED)?;
        let mut task = Task::begin(config, request)?;
        let output = task.take_output().ok_or("no output")?;
        self.next = self.next.wrapping_add(1);
        self.tasks.push((self.next, task));
        Ok((self.next.to_be_bytes().to_vec(), output))
    }

    /// The script of this number.
    pub(super) fn find(&mut self, number: &[u8]) -> Result<&mut Task, String> {
        let number = number.try_into().map(u32::from_be_bytes).map_err(|_| GARBLED)?;
        let task = self.tasks.iter_mut().find(|(each, _)| *each == number);
        task.map(|(_, task)| task).ok_or_else(|| "no such script".to_owned())
    }

    /// Ends it if it still runs, and removes its files.
    pub(super) fn forget(&mut self, number: &[u8]) {
        self.tasks.retain(|(each, _)| each.to_be_bytes() != number);
    }
}

/// What a script is to be told.
pub(super) fn write_request(request: &HookRequest) -> Vec<u8> {
    let mut out = vec![request.kind as u8];
    for argument in &request.arguments {
        out.push(1);
        put(&mut out, argument.as_bytes());
    }
    out.push(0);
    for (name, value) in request.environment.iter() {
        out.push(1);
        put(&mut out, name.as_bytes());
        put(&mut out, value.as_bytes());
    }
    out.push(0);
    match &request.input {
        HookInput::Nothing => out.push(NOTHING),
        HookInput::Credentials { username, password } => {
            out.push(CREDENTIALS);
            put(&mut out, username.as_bytes());
            put(&mut out, password.as_bytes());
        }
        HookInput::Metadata { kind, bytes } => {
            out.extend([METADATA, *kind]);
            put(&mut out, bytes);
        }
    }
    out
}

fn parse_request(body: &[u8], config: &Hooks) -> Option<HookRequest> {
    let from = &mut Reader::new(body);
    let number = from.u8().ok()?;
    let kind = HookKind::ALL.iter().copied().find(|kind| *kind as u8 == number)?;
    let mut arguments = Vec::new();
    while from.u8().ok()? != 0 {
        arguments.push(take_text(from)?);
    }
    let mut environment = Environment::new();
    while from.u8().ok()? != 0 {
        let (name, value) = (take_text(from)?, take_text(from)?);
        if is_ours(&name) {
            environment.set(&name, value);
        }
    }
    for (name, value) in &config.variables {
        if environment.value(name).is_none() {
            environment.set(name, value);
        }
    }
    let input = match from.u8().ok()? {
        NOTHING => HookInput::Nothing,
        CREDENTIALS => HookInput::Credentials {
            username: take_text(from)?,
            password: Zeroizing::new(take_text(from)?),
        },
        METADATA => HookInput::Metadata { kind: from.u8().ok()?, bytes: take(from)?.to_vec() },
        _ => return None,
    };
    (from.remaining() == 0).then(|| HookRequest {
        ticket: None,
        kind,
        lane: String::new(),
        arguments,
        environment,
        input,
    })
}

/// Whether a variable is one of those that tell scripts about a tunnel: small letters, but for what peers and
/// certificates say. What programs and their libraries listen to is in capitals, but for proxies.
fn is_ours(name: &str) -> bool {
    const OTHERS: [&str; 4] = ["X509_", "IV_", "UV_", "OPENVPN_"];
    let small = name.starts_with(|first: char| first.is_ascii_lowercase());
    small && !name.ends_with("_proxy") || OTHERS.iter().any(|start| name.starts_with(start))
}

/// How far a script is; see `Task::status`.
pub(super) fn write_status(status: Option<Option<i32>>) -> Vec<u8> {
    match status {
        None => vec![RUNS],
        Some(None) => vec![KILLED],
        Some(Some(code)) => [&[ENDED][..], &code.to_be_bytes()].concat(),
    }
}

/// The same on the other side. What cannot be read is no success.
pub(super) fn parse_status(answer: &[u8]) -> Option<Option<i32>> {
    match answer {
        [RUNS] => None,
        [ENDED, code @ ..] => Some(code.try_into().map(i32::from_be_bytes).ok()),
        _ => Some(None),
    }
}

/// What came of a script.
pub(super) fn write_outcome(outcome: &HookOutcome) -> Vec<u8> {
    let (good, text) = match outcome {
        HookOutcome::Success { settings } => (1, settings),
        HookOutcome::Failure { reason } => (0, reason),
    };
    [&[good], text.as_bytes()].concat()
}

/// The same on the other side; nothing if nothing came of it yet.
pub(super) fn parse_outcome(answer: &[u8]) -> Option<HookOutcome> {
    let (good, text) = answer.split_first()?;
    let text = String::from_utf8_lossy(text).into_owned();
    Some(match good {
        0 => HookOutcome::Failure { reason: text },
        _ => HookOutcome::Success { settings: text },
    })
}

/// What a script that has ended says.
pub(super) fn write_answer(answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::Now(outcome) => [&[0], write_outcome(outcome).as_slice()].concat(),
        Answer::Later { pending: None } => vec![1],
        Answer::Later { pending: Some(pending) } => {
            let mut out = vec![2];
            out.extend(pending.timeout.to_be_bytes());
            put(&mut out, pending.method.as_bytes());
            put(&mut out, pending.message.as_bytes());
            out
        }
    }
}

/// The same on the other side.
pub(super) fn parse_answer(answer: &[u8]) -> Option<Answer> {
    let from = &mut Reader::new(answer);
    match from.u8().ok()? {
        0 => parse_outcome(from.rest()).map(Answer::Now),
        1 => Some(Answer::Later { pending: None }),
        _ => {
            let pending = Pending {
                timeout: from.u32().ok()?,
                method: take_text(from)?,
                message: take_text(from)?,
            };
            Some(Answer::Later { pending: Some(pending) })
        }
    }
}

fn take_text(from: &mut Reader<'_>) -> Option<String> {
    String::from_utf8(take(from)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_arrive_without_what_programs_listen_to() {
        let mut environment = Environment::new();
        for name in ["dev", "tls_id_0", "X509_0_CN", "IV_VER", "UV_ID", "OPENVPN_x"] {
            environment.set(name, "kept");
        }
        for name in ["LD_PRELOAD", "PATH", "IFS", "BASH_ENV", "http_proxy", "_", "1"] {
            environment.set(name, "gone");
        }
        let inputs = [
            HookInput::Nothing,
            HookInput::Credentials { username: "u".into(), password: "p".to_owned().into() },
            HookInput::Metadata { kind: 7, bytes: vec![0, 255] },
        ];
        let config = Hooks { variables: vec![("PATH".into(), "/bin".into())], ..Hooks::default() };
        for input in inputs {
            let request = HookRequest {
                ticket: None,
                kind: HookKind::LearnAddress,
                lane: String::new(),
                arguments: vec!["add".into(), String::new()],
                environment: environment.clone(),
                input,
            };
            let bytes = write_request(&request);
            let read = parse_request(&bytes, &config).unwrap();
            assert_eq!((read.kind, &read.arguments), (request.kind, &request.arguments));
            let values: Vec<_> = read.environment.iter().map(|(_, value)| value).collect();
            assert_eq!(values, ["kept", "kept", "kept", "kept", "kept", "kept", "/bin"]);
            // It reads back as it was written, but for the variables.
            let again = HookRequest { environment: environment.clone(), ..read };
            assert_eq!(write_request(&again), bytes);
            for len in 0..bytes.len() {
                assert!(parse_request(&bytes[..len], &config).is_none(), "{len}");
            }
        }
    }

    #[test]
    fn answers_arrive_as_they_were_given() {
        let (good, bad) = (
            HookOutcome::Success { settings: "push \"x\"".into() },
            HookOutcome::Failure { reason: String::new() },
        );
        for outcome in [good, bad] {
            assert_eq!(parse_outcome(&write_outcome(&outcome)).as_ref(), Some(&outcome));
            let answer = Answer::Now(outcome);
            assert_eq!(parse_answer(&write_answer(&answer)), Some(answer));
        }
        let pending = Pending { timeout: 30, method: "crtext".into(), message: "PIN?".into() };
        for pending in [None, Some(pending)] {
            let answer = Answer::Later { pending };
            assert_eq!(parse_answer(&write_answer(&answer)), Some(answer));
        }
        for status in [None, Some(None), Some(Some(0)), Some(Some(-1))] {
            assert_eq!(parse_status(&write_status(status)), status);
        }
        assert_eq!(parse_outcome(&[]), None);
    }
}
