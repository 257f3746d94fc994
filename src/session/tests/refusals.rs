//! Certificates that are not good: the right end says why, in words, and the other one gets an alert.

use std::path::PathBuf;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::*;
use crate::config::VerifyName;
use crate::session::describe::hex;

fn vector(name: &str) -> Vec<u8> {
    let all: [(&str, &[u8]); 10] = [
        ("p521.crt", include_bytes!("../../../tests/vectors/tls/p521.crt")),
        ("p521.key", include_bytes!("../../../tests/vectors/tls/p521.key")),
        ("rsa1024.crt", include_bytes!("../../../tests/vectors/tls/rsa1024.crt")),
        ("rsa1024.key", include_bytes!("../../../tests/vectors/tls/rsa1024.key")),
        ("rsa2048.crt", include_bytes!("../../../tests/vectors/tls/rsa2048.crt")),
        ("rsa2048-pkcs1.key", include_bytes!("../../../tests/vectors/tls/rsa2048-pkcs1.key")),
        ("sec1.crt", include_bytes!("../../../tests/vectors/tls/sec1.crt")),
        ("sec1.key", include_bytes!("../../../tests/vectors/tls/sec1.key")),
        ("encrypted.key", include_bytes!("../../../tests/vectors/tls/encrypted.key")),
        ("encrypted-sec1.key", include_bytes!("../../../tests/vectors/tls/encrypted-sec1.key")),
    ];
    all.iter().find(|(known, _)| *known == name).unwrap().1.to_vec()
}

/// Runs a handshake that must fail; what the two ends say.
fn failures(client: &Tls, server: &Tls) -> [String; 2] {
    failures_at(client, server, TODAY)
}

fn failures_at(client: &Tls, server: &Tls, unix: u64) -> [String; 2] {
    let configs = [session_config(Role::Client, client), session_config(Role::Server, server)];
    let mut net = plain(configs, PARAMS, 1);
    net.epoch = unix;
    net.run(20_000);
    net.ends.map(|end| end.failure.map_or("fine".to_owned(), |failure| failure.to_string()))
}

/// The server's reason when this client knocks; TLS 1.2 and 1.3 must agree.
fn server_says(ca: &Authority, client: &Tls) -> String {
    let server = tls(ca, &ca.issue(Wanted::new("router", Role::Server)));
    let [told, reason] = failures(client, &server);
    assert!(told.starts_with("the peer refused") || told == "fine", "the client says {told}");
    let old = Tls { only_tls12: true, only_tls13: false, ..client.clone() };
    let [_, same] = failures(&old, &server);
    assert_eq!(reason, same);
    reason
}

#[test]
fn a_client_certificate_that_is_not_good() {
    let ca = Authority::new("Home CA", 2035);
    let says = |wanted: Wanted| server_says(&ca, &tls(&ca, &ca.issue(wanted)));
    let client = || Wanted::new("laptop", Role::Client);
    assert_eq!(says(client()), "fine");
    assert_eq!(
        says(Wanted { years: (2025, 2026), ..client() }),
        "certificate of 'laptop' expired on 2026-01-01"
    );
    assert_eq!(
        says(Wanted { years: (2027, 2035), ..client() }),
        "certificate of 'laptop' is not valid yet: it begins on 2027-01-01; is our clock right?"
    );
    assert_eq!(
        says(Wanted::new("laptop", Role::Server)),
        "certificate of 'laptop' is for servers, not clients (extended key usage)"
    );
    assert_eq!(
        says(Wanted { purpose: Some(ExtendedKeyUsagePurpose::CodeSigning), ..client() }),
        "certificate of 'laptop' is not for clients (extended key usage)"
    );
    assert_eq!(
        says(Wanted { purpose: None, ..client() }),
        "certificate of 'laptop' has no extended key usage, which remote-cert-tls asks for"
    );
    assert_eq!(
        says(Wanted { usage: false, ..client() }),
        "certificate of 'laptop' has no key usage, which remote-cert-tls asks for"
    );
    assert_eq!(says(Wanted { name: "", ..client() }), "certificate of 'O=Home' has no common name");
    const LONG: &str = "a-name-that-is-longer-than-sixty-four-bytes-and-therefore-refused";
    assert_eq!(
        says(Wanted { name: LONG, ..client() }),
        format!("certificate of '{LONG}' has a common name longer than 64 bytes")
    );
    let stranger = Authority::new("Other CA", 2035);
    let holder = stranger.issue(client());
    assert_eq!(
        server_says(&ca, &tls(&ca, &holder)),
        "certificate of 'laptop' was issued by an unknown CA ('CN=Other CA')"
    );
    let impostor = Authority::new("Home CA", 2035);
    let reason = server_says(&ca, &tls(&ca, &impostor.issue(client())));
    assert_eq!(
        reason,
        "certificate of 'laptop' was issued by an unknown CA that has the name of ours"
    );
    let stale = Authority::new("Old CA", 2026);
    let holder = stale.issue(client());
    let server = tls(&stale, &stale.issue(Wanted::new("router", Role::Server)));
    assert_eq!(
        failures(&Tls { ca: ca.pem.clone().into(), ..tls(&stale, &holder) }, &server)[0],
        "certificate of 'router' was issued by an unknown CA ('CN=Old CA')"
    );
    assert_eq!(
        failures(&tls(&stale, &holder), &server)[0],
        "certificate of 'router' was issued by 'CN=Old CA', which expired on 2026-01-01"
    );
}

#[test]
fn the_ca_itself_is_no_client() {
    let ca = Authority::new("Home CA", 2035);
    let holder = Holder { cert: ca.pem.clone(), key: ca.issuer.key().serialize_pem() };
    let reason = server_says(&ca, &tls(&ca, &holder));
    assert_eq!(reason, "certificate of 'Home CA' is that of a CA and cannot stand for a peer");
}

fn fingerprint(holder: &Holder) -> [u8; 32] {
    let der = CertificateDer::from_pem_slice(holder.cert.as_bytes()).unwrap();
    PeerIdentity::from_der(&der).unwrap().fingerprint
}

/// As stock peers have it: nobody vouches for a certificate then, nor for how long it is good.
#[test]
fn fingerprints_in_place_of_an_authority() {
    let trusting = |own: &Holder, peers: &[&Holder]| Tls {
        ca: Vec::new(),
        fingerprints: peers.iter().map(|peer| fingerprint(peer)).collect(),
        require_usage: false,
        ..tls(&Authority::new("of no use", 2035), own)
    };
    // What `openssl req -x509` makes is at the same time a CA's.
    let alone = |name| {
        let own = Authority::new(name, 2026);
        Holder { cert: own.pem.clone(), key: own.issuer.key().serialize_pem() }
    };
    let [router, laptop, phone, other] = ["router", "laptop", "phone", "laptop"].map(alone);
    let server = trusting(&router, &[&phone, &laptop]);
    for only_tls12 in [false, true] {
        let client = |own, peer| Tls { only_tls12, ..trusting(own, &[peer]) };
        for own in [&laptop, &phone] {
            assert_eq!(failures(&client(own, &router), &server), ["fine", "fine"]);
        }
        let [told, reason] = failures(&client(&other, &router), &server);
        assert_eq!(
            told,
            "the peer refused: it knows neither the CA of our certificate nor its fingerprint"
        );
        let digits = hex(&fingerprint(&other));
        assert_eq!(
            reason,
            format!(
                "certificate of 'laptop' has the fingerprint {digits}, which peer-fingerprint does \
                 not list"
            )
        );
        let [reason, _] = failures(&client(&laptop, &phone), &server);
        assert!(reason.starts_with("certificate of 'router' has the fingerprint "), "{reason}");
    }
    // Usage and name are asked for as ever.
    let strict = Tls { require_usage: true, ..trusting(&laptop, &[&router]) };
    assert!(failures(&strict, &server)[0].contains("no extended key usage"));
    let name = VerifyName::Name("gateway".to_owned());
    let named = Tls { verify_name: Some(name), ..trusting(&laptop, &[&router]) };
    assert!(failures(&named, &server)[0].contains("gateway"));
}

#[test]
fn fingerprints_beside_an_authority() {
    let pki = Pki::new();
    let server = tls(&pki.ca, &pki.server);
    let own = tls(&pki.ca, &pki.client);
    let only = |holder: &Holder| Tls { fingerprints: vec![fingerprint(holder)], ..own.clone() };
    assert_eq!(failures(&only(&pki.server), &server), ["fine", "fine"]);
    assert!(failures(&only(&pki.client), &server)[0].contains("does not list"));
    // The right one, of an authority that is not trusted.
    let stranger = Authority::new("Other CA", 2035);
    let other = Tls { ca: stranger.pem.into(), ..only(&pki.server) };
    assert!(failures(&other, &server)[0].contains("unknown CA"));
}

#[test]
fn verify_x509_name() {
    let pki = Pki::new();
    let server = tls(&pki.ca, &pki.server);
    let says = |name: VerifyName| {
        let client = Tls { verify_name: Some(name), ..tls(&pki.ca, &pki.client) };
        let [reason, _] = failures(&client, &server);
        reason
    };
    assert_eq!(says(VerifyName::Name("router".into())), "fine");
    assert_eq!(says(VerifyName::NamePrefix("rou".into())), "fine");
    assert_eq!(says(VerifyName::Subject("O=Home, CN=router".into())), "fine");
    assert_eq!(
        says(VerifyName::Name("rou".into())),
        "certificate of 'router' (O=Home, CN=router) is not the 'rou' that verify-x509-name asks for"
    );
    assert_ne!(says(VerifyName::NamePrefix("outer".into())), "fine");
    assert_ne!(says(VerifyName::Subject("CN=router".into())), "fine");
}

fn crl(ca: &Authority, serial: u8, until: i32) -> Vec<u8> {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[serial]),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&ca.issuer).unwrap().pem().unwrap().into_bytes()
}

#[test]
fn revocation_by_list() {
    let pki = Pki::new();
    let client = tls(&pki.ca, &pki.client);
    let says = |list: Vec<u8>| {
        let crl = Some((PathBuf::from("crl.pem"), list));
        failures(&client, &Tls { crl, ..tls(&pki.ca, &pki.server) })
    };
    assert_eq!(says(crl(&pki.ca, 7, 2035))[1], "certificate of 'laptop' is revoked");
    assert_eq!(says(crl(&pki.ca, 7, 2035))[0], "the peer refused: our certificate is revoked");
    assert_eq!(says(crl(&pki.ca, 8, 2035))[1], "fine");
    // Past its date: still good for what it says, and nobody else is locked out.
    assert_eq!(says(crl(&pki.ca, 7, 2026))[1], "certificate of 'laptop' is revoked");
    assert_eq!(says(crl(&pki.ca, 8, 2026))[1], "fine");
    // Another CA's list has no say.
    assert_eq!(says(crl(&Authority::new("Other CA", 2035), 7, 2035))[1], "fine");
    let forged = crl(&Authority::new("Home CA", 2035), 8, 2035);
    assert!(says(forged)[1].contains("crl-verify list is not signed by the CA"));
}

#[test]
fn revocation_at_run_time_hits_the_next_handshake() {
    let pki = Pki::new();
    let mut net = plain(pki.configs(), PARAMS, 1);
    net.run(6_000);
    net.assert_tunnel();
    net.ends[1].session.config.tls.revoke([vec![7]]);
    let Net { now, ends, dice, .. } = &mut net;
    ends[1].session.renegotiate(*now, dice).unwrap();
    net.run(10_000);
    let reason = "certificate of 'laptop' is revoked".to_owned();
    assert_eq!(net.ends[1].failure, Some(SessionFailure::Tls(reason)));
}

#[test]
fn a_new_certificate_is_used_from_the_next_handshake_on() {
    let pki = Pki::new();
    let mut net = plain(pki.configs(), PARAMS, 1);
    net.run(6_000);
    let renewed = pki.ca.issue(Wanted { serial: 9, ..Wanted::new("router", Role::Server) });
    let context = &net.ends[1].session.config.tls;
    let mut broken = tls(&pki.ca, &renewed);
    broken.key = tls(&pki.ca, &pki.server).key;
    assert!(context.replace(&broken).is_err());
    context.replace(&tls(&pki.ca, &renewed)).unwrap();
    let Net { now, ends, dice, .. } = &mut net;
    ends[0].session.renegotiate(*now, dice).unwrap();
    net.run(10_000);
    let serials: Vec<_> =
        net.ends[0].authentications.iter().map(|auth| auth.identity.serial.clone()).collect();
    assert_eq!(serials, [[7], [9]]);
}

#[test]
fn without_a_clock_certificates_are_not_too_new() {
    let pki = Pki::new();
    let (client, server) = (tls(&pki.ca, &pki.client), tls(&pki.ca, &pki.server));
    for unset in [0, 1_600_000_000] {
        assert_eq!(failures_at(&client, &server, unset), ["fine", "fine"]);
    }
    // A set clock is believed.
    let [_, reason] = failures_at(&client, &server, 1_710_000_000);
    assert_ne!(reason, "fine");
}

#[test]
fn no_tls_version_in_common() {
    let pki = Pki::new();
    let client = Tls { only_tls12: true, ..tls(&pki.ca, &pki.client) };
    let server = Tls { only_tls13: true, ..tls(&pki.ca, &pki.server) };
    let [told, reason] = failures(&client, &server);
    assert!(told.starts_with("the peer refused: we have no TLS version in common"), "{told}");
    assert!(reason.starts_with("no TLS protocol version in common"), "{reason}");
}

/// Loads `cert` and `key` as a server would.
fn load(cert: &[u8], key: &[u8]) -> String {
    let pki = Pki::new();
    let mut tls = tls(&pki.ca, &pki.server);
    if !cert.is_empty() {
        tls.cert = cert.to_vec();
    }
    if !key.is_empty() {
        tls.key = Zeroizing::new(key.to_vec());
    }
    TlsContext::server(&tls, SharedUnixTime::default())
        .map_or_else(|error| error, |_| "fine".into())
}

#[test]
fn keys_of_every_encoding_load() {
    assert_eq!(load(&vector("sec1.crt"), &vector("sec1.key")), "fine");
    assert_eq!(load(&vector("rsa2048.crt"), &vector("rsa2048-pkcs1.key")), "fine");
}

#[test]
fn what_cannot_be_used_says_what_to_change() {
    let says = |cert: &str, key: &str, wanted: &str| {
        let message = load(&vector(cert), &vector(key));
        assert!(message.contains(wanted), "{message}");
    };
    says("p521.crt", "p521.key", "cert: its key is on the curve P-521");
    says("rsa1024.crt", "rsa1024.key", "cert: its key is RSA with 1024 bits");
    says("sec1.crt", "encrypted.key", "key: the private key is protected by a pass phrase");
    says("sec1.crt", "encrypted-sec1.key", "key: the private key is protected by a pass phrase");
    says(
        "sec1.crt",
        "rsa2048-pkcs1.key",
        "key: this private key does not belong to the certificate",
    );
    says("sec1.key", "sec1.key", "cert: there is no certificate in it");
    says("sec1.crt", "sec1.crt", "key: there is no private key in it");
    let pki = Pki::new();
    let empty_ca = Tls { ca: Vec::new(), ..tls(&pki.ca, &pki.server) };
    let message = TlsContext::server(&empty_ca, SharedUnixTime::default()).unwrap_err();
    assert!(message.starts_with("ca: there is no certificate"), "{message}");
    let crl = Some((PathBuf::from("/etc/crl.pem"), b"nonsense".to_vec()));
    let bad_crl = Tls { crl, ..tls(&pki.ca, &pki.server) };
    let message = TlsContext::server(&bad_crl, SharedUnixTime::default()).unwrap_err();
    assert_eq!(message, "crl-verify /etc/crl.pem: there is no revocation list in it");
}
