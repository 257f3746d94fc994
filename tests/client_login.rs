//! What the client logs in with: asked for when it has to be, answers to challenges, tokens, and what is
//! forgotten when.

use std::cell::RefCell;
use std::rc::Rc;

use crate::common::net::Net;
use crate::common::puppet::{self, Strings};
use sixgate::engine::{Command, ExitReason, LoginQuestion, Reply};

const PUSH: &str = "PUSH_REPLY,topology subnet,ifconfig 10.8.0.2 255.255.255.0";
const FILE: &str = "<auth-user-pass>\njo\nsecret\n</auth-user-pass>\n";

/// A puppet (node 0) that greets with this line, and a client (node 1) with these.
fn show(greeting: &str, client: &str) -> (Net, Rc<RefCell<Strings>>) {
    puppet::show(Strings { greeting: vec![greeting.to_owned()], ..Strings::default() }, client)
}

fn questions(net: &Net) -> Vec<LoginQuestion> {
    let commands = net.nodes[1].commands.iter();
    commands
        .filter_map(|command| match command {
            Command::AskLogin(question) => Some((**question).clone()),
            _ => None,
        })
        .collect()
}

fn refusals(net: &Net) -> Vec<&str> {
    let commands = net.nodes[1].commands.iter();
    commands
        .filter_map(|command| match command {
            Command::LoginRefused(reason) => Some(reason.as_str()),
            _ => None,
        })
        .collect()
}

/// Answers the newest question word by word, as somebody at a terminal would, and waits.
fn answer(net: &mut Net, count: usize, words: &[&str]) {
    assert!(net.run_until(40_000, |net| questions(net).len() == count), "asked {count} times");
    let mut question = questions(net).pop().unwrap();
    for word in words {
        assert!(question.next().is_some(), "{word} is not asked for");
        question.answer(word);
    }
    assert!(question.next().is_none(), "more is asked for");
    net.reply(1, Reply::Login(question.finish()));
    net.run(2_000);
}

fn logins(strings: &Rc<RefCell<Strings>>) -> Vec<(String, String)> {
    strings.borrow().logins.clone()
}

fn login(name: &str, password: &str) -> (String, String) {
    (name.to_owned(), password.to_owned())
}

fn greet(strings: &Rc<RefCell<Strings>>, line: &str) {
    strings.borrow_mut().greeting = vec![line.to_owned()];
}

fn say(net: &mut Net, strings: &Rc<RefCell<Strings>>, line: &str) {
    strings.borrow_mut().say.push_back(line.to_owned());
    net.run(200);
}

fn is_up(net: &Net) -> bool {
    net.nodes[1].settings.is_some()
}

#[test]
fn nothing_is_sent_before_the_login_is_known() {
    let (mut net, strings) = show(PUSH, "auth-user-pass\nstatic-challenge PIN 0\n");
    net.run(10_000);
    assert!(net.trace.is_empty());
    answer(&mut net, 1, &["jo", "secret", "1234"]);
    assert!(is_up(&net));
    assert_eq!(logins(&strings), [login("jo", "SCRV1:c2VjcmV0:MTIzNA==")]);
    // As it was typed it is good for the next connection, too.
    say(&mut net, &strings, "RESTART");
    assert!(net.run_until(20_000, |_| logins(&strings).len() == 2));
    assert_eq!(questions(&net).len(), 1);
}

#[test]
fn who_cannot_be_asked_is_an_end() {
    let (mut net, _strings) = show(PUSH, "auth-user-pass\n");
    net.reply(1, Reply::Login(Err("there is no terminal".into())));
    assert_eq!(net.nodes[1].ended, Some(ExitReason::Fatal("there is no terminal".into())));
    let (mut net, _strings) = show(PUSH, "auth-user-pass\n");
    net.reply(1, Reply::Shutdown);
    assert_eq!(net.nodes[1].ended, Some(ExitReason::Requested), "while it is asked");
}

#[test]
fn an_answer_to_a_challenge_is_good_for_one_connection() {
    let challenge = "AUTH_FAILED,CRV1:R,E:s1:Ym9i:Which code?";
    for retry in ["", "auth-retry nointeract\n", "auth-retry interact\n"] {
        let (mut net, strings) = show(challenge, &format!("{FILE}{retry}"));
        assert!(net.run_until(20_000, |net| questions(net).len() == 1));
        assert_eq!(refusals(&net), ["CRV1:R,E:s1:Ym9i:Which code?"]);
        assert_eq!(questions(&net)[0].next(), Some(("Which code?", true)));
        greet(&strings, PUSH);
        answer(&mut net, 1, &["4711"]);
        assert!(is_up(&net));
        say(&mut net, &strings, "RESTART");
        assert!(net.run_until(20_000, |_| logins(&strings).len() == 3));
        let expected =
            [login("jo", "secret"), login("bob", "CRV1::s1::4711"), login("jo", "secret")];
        assert_eq!(logins(&strings), expected, "{retry}");
    }
    let (mut net, _strings) = show("AUTH_FAILED,CRV1:nonsense", FILE);
    assert!(net.run_until(20_000, |net| net.nodes[1].ended.is_some()));
}

#[test]
fn a_token_spares_the_answer_at_a_renegotiation() {
    let (mut net, strings) =
        show("AUTH_FAILED,CRV1:R:s1:am8=:Code", &format!("{FILE}reneg-sec 60\n"));
    assert!(net.run_until(20_000, |net| questions(net).len() == 1));
    greet(&strings, &format!("{PUSH},auth-token T1"));
    answer(&mut net, 1, &["4711"]);
    assert!(net.run_until(90_000, |_| logins(&strings).len() == 3));
    assert_eq!(logins(&strings)[2], login("jo", "T1"));
}

#[test]
fn a_refusal_is_an_end_or_a_question_or_neither() {
    for (lines, again, asked) in [
        ("auth-user-pass\n", false, 1),
        ("auth-user-pass\nauth-retry none\n", false, 1),
        ("auth-user-pass\nauth-retry interact\n", true, 2),
        ("auth-user-pass\nauth-retry nointeract\n", true, 1),
    ] {
        let (mut net, strings) = show("AUTH_FAILED,no such user", lines);
        answer(&mut net, 1, &["jo", "wrong"]);
        assert_eq!(refusals(&net), ["no such user"], "{lines}");
        if asked == 2 {
            greet(&strings, PUSH);
            answer(&mut net, 2, &["jo", "right"]);
            assert!(is_up(&net));
            assert_eq!(logins(&strings), [login("jo", "wrong"), login("jo", "right")]);
        } else {
            net.run(15_000);
            assert_eq!(logins(&strings).len() > 1, again, "{lines}");
            assert_eq!(net.nodes[1].ended.is_some(), !again, "{lines}");
        }
        assert_eq!(questions(&net).len(), asked, "{lines}");
    }
    // What stands in a file cannot be asked for.
    let (mut net, strings) = show("AUTH_FAILED", &format!("{FILE}auth-retry interact\n"));
    net.run(25_000);
    assert!(logins(&strings).len() > 1 && questions(&net).is_empty());
}

#[test]
fn what_was_entered_is_forgotten_when_it_is_not_needed_any_more() {
    for (lines, asked) in [("auth-user-pass\n", 1), ("auth-user-pass\nauth-nocache\n", 2)] {
        let (mut net, strings) = show(PUSH, &format!("{lines}reneg-sec 60\n"));
        answer(&mut net, 1, &["jo", "secret"]);
        net.run(70_000);
        let twice = [login("jo", "secret"), login("jo", "secret")];
        assert_eq!(logins(&strings), twice, "a renegotiation still needs it");
        say(&mut net, &strings, "RESTART");
        net.run(10_000);
        assert_eq!(questions(&net).len(), asked, "{lines}");
        assert_eq!(logins(&strings).len(), 4 - asked, "{lines}");
    }
    // A token that has run out is no way back to a password that is gone.
    for (lines, asked) in [("auth-user-pass\n", 1), ("auth-user-pass\nauth-nocache\n", 2)] {
        let (mut net, strings) = show(&format!("{PUSH},auth-token T1"), lines);
        answer(&mut net, 1, &["jo", "secret"]);
        greet(&strings, "AUTH_FAILED,SESSION:expired");
        say(&mut net, &strings, "RESTART");
        net.run_until(20_000, |_| logins(&strings).len() == 2);
        greet(&strings, PUSH);
        net.run(20_000);
        assert_eq!(questions(&net).len(), asked, "{lines}");
        if asked == 2 {
            answer(&mut net, 2, &["jo", "secret"]);
        }
        let third = [login("jo", "secret"), login("jo", "T1"), login("jo", "secret")];
        assert_eq!(logins(&strings), third, "{lines}");
    }
}

#[test]
fn a_refusal_for_now_holds_whatever_happens_to_the_network() {
    let (mut net, strings) = show("AUTH_FAILED,TEMP[backoff 20,advance no]:later", FILE);
    assert!(net.run_until(5_000, |_| logins(&strings).len() == 1));
    greet(&strings, PUSH);
    net.run(5_000);
    net.reply(1, Reply::NetworkChanged);
    net.run(10_000);
    assert!(!is_up(&net));
    net.run(10_000);
    assert!(is_up(&net));
    let ports = net.nodes[1].commands.iter();
    let ports = ports.filter(|command| matches!(command, Command::NewPort)).count();
    assert_eq!(ports, 1, "the server may still have the refused session under the old one");
}
