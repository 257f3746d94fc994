//! The opening under every wrapping, TLS version, key type and derivation.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::*;
use crate::config::Digest;
use crate::session::data::OCC_MAGIC;
use crate::session::negotiate::Exchange;
use crate::session::tls::Oversize;
use crate::wire::control::{AckList, Body, Header, MessageId, ResetFlags};
use crate::wire::static_key::{StaticKey, V2ServerKey};
use crate::wire::wkc;

const BAD: Weather = Weather { loss: 25, duplicate: 15, jitter: 400, data_too: false };

fn static_key() -> StaticKey {
    StaticKey::generate(&mut Dice::new(99))
}

fn assert_up(net: &mut Net) {
    for end in &net.ends {
        assert_eq!(end.failure, None);
        assert_eq!(end.ready, [KeyId::ZERO]);
    }
    assert_eq!(net.ends[1].messages, [Message::PushRequest]);
    net.assert_tunnel();
}

/// Every framing, and what happens when the ends disagree: counted, not passed on.
#[test]
fn framings() {
    let kinds = [Framing::None, Framing::Lzo, Framing::Swap, Framing::StubV2];
    for framing in kinds {
        let mut net = plain(Pki::new().configs(), DataParams { framing, ..PARAMS }, 4);
        net.run(2_000);
        assert_up(&mut net);
    }
    let mut net = plain(Pki::new().configs(), PARAMS, 5);
    net.ends[1].params.framing = Framing::Swap;
    net.run(2_000);
    let mut buf = PacketBuf::new();
    let mut packet = buf.packet_from(&[0x60, 1, 2]).unwrap();
    let [client, server] = &mut net.ends;
    client.session.seal(net.now, &mut packet).unwrap();
    assert_eq!(server.session.open(net.now, &mut packet), Ok(Payload::Compressed));
}

/// [6.4], whoever asks.
#[test]
fn questions_in_the_data_channel_are_answered() {
    let mut net = plain(Pki::new().configs(), PARAMS, 6);
    net.run(2_000);
    let now = net.now;
    for asker in [0, 1] {
        let mut ask = |question: &[u8]| {
            let mut buf = PacketBuf::new();
            let text = [&OCC_MAGIC, question].concat();
            let mut packet = buf.packet_from(&text).unwrap();
            net.ends[asker].session.seal(now, &mut packet).unwrap();
            let other = &mut net.ends[1 - asker].session;
            let asked = other.open(now, &mut packet);
            assert!(matches!(asked, Ok(Payload::OccRequest(_))), "{asked:?}");
            assert!(other.poll_transmit(now, &mut packet));
            let len = packet.len();
            let answer = net.ends[asker].session.open(now, &mut packet);
            assert_eq!(answer, Ok(Payload::OccOther));
            let mut buf = PacketBuf::new();
            assert!(!net.ends[1 - asker].session.poll_transmit(now, &mut buf.packet()));
            (packet.as_slice()[16..].to_vec(), len)
        };
        assert_eq!(ask(&[0]).0, b"\x01V4,dev-type tun\0");
        let (filling, len) = ask(&[2, 0x05, 0x78]);
        assert_eq!((filling[0], len), (3, 1400));
        let (sizes, _) = ask(&[4]);
        assert_eq!((sizes[0], sizes.len(), &sizes[3..]), (5, 5, &[0x05, 0x78][..]));
    }
}

#[test]
fn both_ends_learn_who_the_other_is() {
    let mut net = plain(Pki::new().configs(), PARAMS, 1);
    net.run(2_000);
    assert_up(&mut net);
    let [client, server] = &net.ends;
    let seen = &server.authentications[0];
    assert_eq!(seen.identity.common_name, "laptop");
    assert_eq!(seen.identity.subject, "O=Home, CN=laptop");
    assert_eq!((seen.username.as_str(), seen.password.as_str()), ("user", "secret"));
    assert_eq!(seen.peer_info, "IV_VER=test\nIV_PROTO=990\n");
    assert!(!seen.renegotiation && seen.credential_error.is_none());
    let seen = &client.authentications[0];
    assert_eq!(seen.identity.common_name, "router");
    assert_eq!(seen.options, "V4,dev-type tun");
    assert_eq!((seen.username.as_str(), seen.peer_info.as_str()), ("", ""));
    assert!(client.session.tls_description().contains("TLSv1_3"));
    assert!(client.session.is_quiet() && server.session.is_quiet());
}

#[test]
fn every_kind_of_key_and_both_tls_versions() {
    let ca = Authority::new("Home CA", 2035);
    let rsa = include_str!("../../../tests/vectors/tls/rsa2048.key");
    let keys = || {
        [
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            KeyPair::from_pem(rsa).unwrap(),
        ]
    };
    for (client_key, server_key) in keys().into_iter().zip(keys().into_iter().rev()) {
        let client = ca.issue(Wanted { key: client_key, ..Wanted::new("laptop", Role::Client) });
        let server = ca.issue(Wanted { key: server_key, ..Wanted::new("router", Role::Server) });
        for (only_tls12, derivation) in [(true, Derivation::Prf), (false, Derivation::Exporter)] {
            let client = Tls { only_tls12, ..tls(&ca, &client) };
            let configs = [
                session_config(Role::Client, &client),
                session_config(Role::Server, &tls(&ca, &server)),
            ];
            let mut net = plain(configs, DataParams { derivation, ..PARAMS }, 2);
            net.run(2_000);
            assert_up(&mut net);
            let version = if only_tls12 { "TLSv1_2" } else { "TLSv1_3" };
            assert!(net.ends[1].session.tls_description().starts_with(version));
        }
    }
}

#[test]
fn every_cipher_derivation_and_format() {
    let pki = Pki::new();
    let ciphers = [CipherName::ChaCha20Poly1305, CipherName::Aes256Gcm, CipherName::Aes128Gcm];
    for cipher in ciphers {
        for derivation in [Derivation::Prf, Derivation::Exporter] {
            for format in [Format::Classic, Format::Epoch] {
                let params = DataParams { cipher, derivation, format, ..PARAMS };
                let mut net = plain(pki.configs(), params, 3);
                net.run(1_000);
                assert_up(&mut net);
            }
        }
    }
}

#[test]
fn data_packets_without_a_peer_id() {
    let mut net = plain(Pki::new().configs(), DataParams { peer: None, ..PARAMS }, 3);
    net.run(1_000);
    assert_up(&mut net);
    let (opcode, _) = net.ends[1].opcodes.last().unwrap();
    assert_eq!(*opcode, Opcode::DataV1);
}

#[test]
fn bad_weather_only_costs_time() {
    let pki = Pki::new();
    for seed in 0..40 {
        let mut net = plain(pki.configs(), PARAMS, seed);
        net.weather = BAD;
        net.run(55_000);
        net.weather = Weather::default();
        assert_up(&mut net);
        let client = &net.ends[0].messages;
        assert!(matches!(client.as_slice(), [Message::PushReply(_)]), "seed {seed}: {client:?}");
    }
}

#[test]
fn tls_auth_and_tls_crypt() {
    let (pki, key) = (Pki::new(), static_key());
    let pairs = [
        [Wrap::tls_auth(&key, Some(1), Digest::Sha1), Wrap::tls_auth(&key, Some(0), Digest::Sha1)],
        [Wrap::tls_auth(&key, None, Digest::Sha256), Wrap::tls_auth(&key, None, Digest::Sha256)],
        [Wrap::tls_crypt(&key, Role::Client), Wrap::tls_crypt(&key, Role::Server)],
    ];
    for wraps in pairs {
        let mut net = stateful(pki.configs(), wraps, None, PARAMS, 4);
        net.weather = BAD;
        net.run(55_000);
        net.weather = Weather::default();
        assert_up(&mut net);
    }
}

/// The stateless opening as a server does it before there is a session: returns the ends after the
/// third packet, whose opcode comes along.
fn stateless(wrap: impl Fn(Role) -> Wrap, wkc: Option<Vec<u8>>, resend_wkc: bool) -> (Net, Opcode) {
    let [client_config, server_config] = Pki::new().configs().map(Arc::new);
    let mut dice = Dice::new(5);
    let mut memory = PacketBuf::new();
    let mut client = Session::client(start(), client_config, wrap(Role::Client), wkc, &mut dice);
    let remote = client.local_id();

    let mut packet = memory.packet();
    assert!(client.poll_transmit(start(), &mut packet));
    let reset = packet.as_mut_slice();
    let reset = if reset[0] == 0x50 { wkc::split_mut(reset).unwrap().0 } else { reset };
    wrap(Role::Server).open(reset).unwrap();

    let local = SessionId(*b"a cookie");
    let mut reply = memory.packet();
    let opcode = Opcode::HardResetServerV2;
    let header = Header { opcode, key_id: KeyId::ZERO, session: local };
    let acks = AckList::from_slice(&[MessageId(0)]).unwrap();
    let payload = ResetFlags { resend_wkc }.as_bytes();
    let body = Body { acks, remote: Some(remote), id: Some(MessageId(0)), payload };
    wrap(Role::Server).seal(start().unix, header, &body, &[], &mut reply).unwrap();
    client.handle_control(start(), reply.as_mut_slice(), &mut dice).unwrap();
    assert_eq!(client.remote_id(), local);

    let mut third = memory.packet();
    assert!(client.poll_transmit(start(), &mut third));
    let (opcode, _) = Opcode::from_first_byte(third.as_slice()[0]);
    assert!(third.len() + 48 <= CONTROL_MTU);
    let wrap = wrap(Role::Server);
    let mut server = Session::server(start(), server_config, wrap, local, remote, &mut dice);
    server.handle_control(start(), third.as_mut_slice(), &mut dice).unwrap();
    (Net::new(End::new(client, PARAMS), End::new(server, PARAMS), 5), opcode)
}

#[test]
fn stateless_opening() {
    let key = static_key();
    let (mut net, opcode) = stateless(|role| Wrap::tls_crypt(&key, role), None, false);
    assert_eq!(opcode, Opcode::ControlV1);
    net.weather = BAD;
    net.run(55_000);
    net.weather = Weather::default();
    assert_up(&mut net);
}

#[test]
fn tls_crypt_v2_with_every_size_of_wrapped_key() {
    let key = static_key();
    for metadata in [0, 200, wkc::MAX_METADATA] {
        let server_key = V2ServerKey::generate(&mut Dice::new(7));
        let wkc = server_key.wrap_client_key(&key, &vec![0; metadata]).unwrap();
        let (mut net, opcode) = stateless(|role| Wrap::tls_crypt(&key, role), Some(wkc), true);
        assert_eq!(opcode, Opcode::WkcV1);
        net.weather = BAD;
        net.run(55_000);
        net.weather = Weather::default();
        assert_up(&mut net);
        let seen = &net.ends[1].opcodes;
        assert!(seen.iter().all(|(opcode, _)| *opcode != Opcode::HardResetClientV3));
    }
}

#[test]
fn tls_crypt_v2_to_a_server_that_keeps_state() {
    let key = static_key();
    let wkc = V2ServerKey::generate(&mut Dice::new(7)).wrap_client_key(&key, &[]).unwrap();
    let wraps = [Wrap::tls_crypt(&key, Role::Client), Wrap::tls_crypt(&key, Role::Server)];
    let mut net = stateful(Pki::new().configs(), wraps, Some(wkc), PARAMS, 8);
    net.run(2_000);
    assert_up(&mut net);
    assert!(net.ends[1].opcodes.iter().all(|(opcode, _)| *opcode != Opcode::WkcV1));
}

#[test]
fn an_idle_tunnel_pings_and_a_dead_peer_is_given_up() {
    let mut net = plain(Pki::new().configs(), PARAMS, 9);
    net.run(100_000);
    assert!((9..=10).contains(&net.ends[0].pings), "{} pings", net.ends[0].pings);
    assert_up(&mut net);
    net.cut = true;
    net.run(50_000);
    assert_eq!(net.ends[0].failure, None);
    net.run(15_000);
    for end in &mut net.ends {
        assert_eq!(end.failure, Some(SessionFailure::PingTimeout));
        assert_eq!(end.session.poll_timeout(), None);
    }
}

#[test]
fn an_opening_that_leads_nowhere_ends_with_the_hand_window() {
    let mut net = plain(Pki::new().configs(), PARAMS, 10);
    net.cut = true;
    net.run(61_000);
    for end in &net.ends {
        assert_eq!(end.failure, Some(SessionFailure::HandshakeTimeout));
    }
}

#[test]
fn many_messages_arrive_whole_and_in_order() {
    let mut net = plain(Pki::new().configs(), PARAMS, 11);
    net.weather = BAD;
    net.run(30_000);
    let session = &mut net.ends[1].session;
    for number in 0..MAX_CONTROL_QUEUE {
        session.send_message(&format!("INFO,{number}{}", "x".repeat(900))).unwrap();
    }
    while session.send_message("INFO,more").is_ok() {}
    net.run(300_000);
    let infos = net.ends[0].messages.iter().filter_map(|message| match message {
        Message::Info(text) => text.trim_end_matches('x').parse::<usize>().ok(),
        _ => None,
    });
    assert!(infos.eq(0..MAX_CONTROL_QUEUE));
}

#[test]
fn a_client_that_gets_no_answer_to_its_pull_gives_up() {
    for (message, patience) in [("INFO,wait", 62), ("AUTH_PENDING,timeout 600", 602)] {
        let mut configs = Pki::new().configs();
        configs[0].timers.reneg.0 = Duration::from_secs(3600);
        let mut net = plain(configs, PARAMS, 12);
        net.ends[1].admit = Some(message);
        net.run((patience - 10) * 1_000);
        assert_eq!(net.ends[0].failure, None);
        net.run(15_000);
        assert_eq!(net.ends[0].failure, Some(SessionFailure::HandshakeTimeout), "{message}");
    }
}

#[test]
fn a_key_exchange_in_several_records() {
    let [client_config, server_config] = Pki::new().configs();
    let mut dice = Dice::new(1);
    let bytes = Exchange::new(Role::Client, false).speak(&client_config, &mut dice).unwrap();
    let whole = Exchange::new(Role::Server, false).listen(Ok(&bytes)).unwrap().unwrap();
    // Where only the peer info is missing, it is taken for absent, as it may be.
    let options = 5 + 48 + 64 + 2 + client_config.options.len() + 1;
    let password = options + 2 + "user".len() + 1 + 2 + "secret".len() + 1;
    let complete = [password, bytes.len()];
    for cut in 1..=bytes.len() {
        let (first, rest) = bytes.split_at(cut);
        let mut server = Exchange::new(Role::Server, false);
        let early = server.listen(Ok(first)).unwrap();
        assert_eq!(early.is_some(), complete.contains(&cut), "cut at {cut}");
        if early.is_none() {
            let message = server.listen(Ok(rest)).unwrap().unwrap();
            assert_eq!(message.peer_info, whole.peer_info);
            assert_eq!(message.credentials.unwrap().username, "user");
            assert!(server.should_speak());
            server.speak(&server_config, &mut dice).unwrap();
            assert!(server.is_complete() && !server.should_speak());
        }
    }
}

#[test]
fn a_key_exchange_is_refused_when_it_cannot_be_one() {
    let listen = |bytes: &[u8]| Exchange::new(Role::Server, false).listen(Ok(bytes)).unwrap_err();
    assert!(listen(b"PUSH_REQUEST\0").contains("zeros"));
    assert!(listen(&[0, 0, 0, 0, 1]).contains("key method 1"));
    let mut server = Exchange::new(Role::Server, false);
    let mut large = vec![0; 1500];
    large[4] = 2;
    large[117..119].copy_from_slice(&[0x05, 0xff]);
    assert!(server.listen(Ok(&large)).unwrap().is_none());
    assert!(server.listen(Ok(&large)).unwrap_err().contains("too long"));
    assert!(
        Exchange::new(Role::Server, false).listen(Err(Oversize)).unwrap_err().contains("too long")
    );
}

#[test]
fn nobody_speaks_before_the_judgement() {
    let [client_config, server_config] = Pki::new().configs();
    let mut dice = Dice::new(6);
    let answer = Exchange::new(Role::Server, false).speak(&server_config, &mut dice).unwrap();
    let mut client = Exchange::new(Role::Client, true);
    assert!(!client.should_speak());
    let error = client.listen(Ok(&answer)).unwrap_err();
    assert!(error.contains("before its turn") && !client.has_theirs());
    assert!(client.asks_for_judgement() && !client.asks_for_judgement());
    assert!(!client.should_speak() && client.listen(Ok(&answer)).is_err());
    client.release();
    assert!(client.should_speak() && !client.asks_for_judgement());
    client.speak(&client_config, &mut dice).unwrap();
    assert!(client.listen(Ok(&answer)).unwrap().is_some());
}
