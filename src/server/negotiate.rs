//! What a client can do, and what the server makes of it: cipher, key derivation, data format
//! [5.3, 7.2, 8.1].
//!
//! The client's word is only an offer: nothing is inferred from its version, one capability is
//! never taken to imply another, and unknown ones are ignored. Putting the outcome into words for
//! the client is `push`'s business.

use crate::config::{CipherName, Config, Framing};
use crate::session::occ::is_framed;
use crate::wire::key_method::occ_option;
use crate::wire::peer_info::{HAS_AES, IvProto, PeerInfo, WANTS_PREFIX};

/// The reason that stock servers give, which clients show to their user [8.1].
pub const NO_SHARED_CIPHER: &str = "Data channel cipher negotiation failed (no shared cipher)";

/// What a client says about itself in its peer info and options string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    proto: IvProto,
    /// `IV_CIPHERS` as it is.
    ciphers: Option<String>,
    /// `IV_NCP` is 2 or more.
    ncp: bool,
    /// `cipher` of the options string.
    occ_cipher: Option<String>,
    /// The client frames its packets as for compression, by its options string.
    framed: bool,
    /// `IV_COMP_STUBv2`: it can be told to use the framing that adds nothing.
    stub_v2: bool,
    /// `IV_SIXGATE_PREFIX`: it has a use for a prefix of its own.
    pub wants_prefix: bool,
    /// `IV_SIXGATE_AES=0`: its processor has no instructions for AES. Others do not say.
    slow_aes: bool,
    /// `IV_MTU`: the largest tunnel MTU the client can take.
    pub mtu: Option<u16>,
    /// `IV_VER`, or empty.
    pub version: String,
    /// `IV_PLAT`, or empty.
    pub platform: String,
}

impl Offer {
    /// Reads peer info lines and the options (OCC) string.
    pub fn read(peer_info: &str, options: &str) -> Self {
        let info = PeerInfo::new(peer_info);
        Self {
            proto: info.proto(),
            ciphers: info.lookup("IV_CIPHERS").map(str::to_owned),
            ncp: info.ncp() >= 2,
            occ_cipher: occ_option(options, "cipher").map(str::to_owned),
            framed: is_framed(options),
            stub_v2: info.lookup("IV_COMP_STUBv2") == Some("1"),
            wants_prefix: info.lookup(WANTS_PREFIX) == Some("1"),
            slow_aes: info.lookup(HAS_AES) == Some("0"),
            mtu: info.mtu().map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX)),
            version: info.version().unwrap_or_default(),
            platform: info.platform().unwrap_or_default(),
        }
    }

    /// Wants its configuration without asking for it.
    pub const fn request_push(&self) -> bool {
        self.has(IvProto::REQUEST_PUSH)
    }

    /// Understands `AUTH_FAILED,TEMP` (try again later).
    pub const fn auth_fail_temp(&self) -> bool {
        self.has(IvProto::AUTH_FAIL_TEMP)
    }

    /// Takes a time in AUTH_PENDING.
    pub const fn auth_pending_keywords(&self) -> bool {
        self.has(IvProto::AUTH_PENDING_KEYWORDS)
    }

    /// Takes new addresses and routes while it is connected [7.4].
    pub const fn push_update(&self) -> bool {
        self.has(IvProto::PUSH_UPDATE)
    }

    const fn has(&self, bit: IvProto) -> bool {
        self.proto.has(bit)
    }

    /// Picks a cipher: the first of `ours` that the client can use. Its options string counts only
    /// for clients that send no list; `fallback` only for those that name nothing at all [8.1].
    fn cipher(&self, ours: &[CipherName], fallback: Option<CipherName>) -> Option<CipherName> {
        let list = match &self.ciphers {
            Some(list) => list.as_str(),
            None if self.ncp => "AES-256-GCM:AES-128-GCM",
            None => "",
        };
        let occ = self.occ_cipher.as_deref().filter(|_| self.ciphers.is_none());
        let usable = |cipher: &&CipherName| {
            let name = cipher.as_str();
            list.split(':').any(|theirs| theirs == name) || occ == Some(name)
        };
        let shared = ours.iter().find(usable).copied();
        let fits = |own: &CipherName| list.is_empty() && occ.is_none_or(|occ| occ == own.as_str());
        shared.or_else(|| fallback.filter(fits))
    }

    /// The same in the order of this configuration. Where that is not the user's, ChaCha20 comes first
    /// for a client to which AES is a burden; our own processor is considered in the order already.
    fn best_cipher(&self, config: &Config) -> Option<CipherName> {
        let fastest = [CipherName::ChaCha20Poly1305];
        let first = if config.fastest_cipher && self.slow_aes { &fastest[..] } else { &[] };
        let shared = self.cipher(first, None);
        shared.or_else(|| self.cipher(&config.data_ciphers, config.fallback_cipher))
    }

    /// The framing to use with this client. One that frames its packets is moved to what adds
    /// nothing, as stock servers do it with `compress migrate` [6.5].
    const fn framing(&self) -> Framing {
        match (self.framed, self.stub_v2) {
            (false, _) => Framing::None,
            (true, true) => Framing::StubV2,
            (true, false) => Framing::Lzo,
        }
    }

    /// What to change where, when there is no cipher in common.
    pub fn advice(&self, ours: &[CipherName]) -> String {
        let theirs = self.ciphers.as_deref().or(self.occ_cipher.as_deref());
        let theirs = theirs.filter(|list| !list.is_empty());
        let Some(theirs) = theirs else {
            return "it names none: set `data-ciphers AES-256-GCM` on it (OpenVPN 2.4: remove \
                    `ncp-disable`), or the one it uses as `data-ciphers-fallback` here"
                .to_owned();
        };
        let known = theirs.split(':').find_map(CipherName::from_name);
        let here = known.map_or_else(String::new, |cipher| {
            format!(", or add {} to `data-ciphers` here", cipher.as_str())
        });
        // Before 2.5 it was `cipher` that said which one.
        let option = if self.ciphers.is_some() { "data-ciphers" } else { "cipher" };
        format!(
            "it offers only {}: set `{option} {}` on it{here}",
            theirs.escape_debug(),
            ours.first().map_or("AES-256-GCM", |cipher| cipher.as_str()),
        )
    }
}

/// What a server and one client will use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Data channel cipher.
    pub cipher: CipherName,
    /// What surrounds payloads; any but none is pushed.
    pub framing: Framing,
    /// The client takes a pushed `cipher`; otherwise it uses this one already.
    pub push_cipher: bool,
    /// Data keys come from the TLS exporter, not from the old PRF.
    pub exporter: bool,
    /// The client knows `protocol-flags` and leaves by `EXIT` on the control channel.
    pub cc_exit: bool,
    /// Control packets of later keys get a wrap key of their own [2.6].
    pub dynamic_tls_crypt: bool,
    /// Data packets in the epoch format [6.2].
    pub epoch: bool,
    /// Data packets carry the peer id.
    pub data_v2: bool,
    /// MTU to push; `None` for clients that do not know the option.
    pub tun_mtu: Option<u16>,
}

impl Terms {
    /// Decides; `None` when there is no cipher that both sides have.
    pub fn negotiate(offer: &Offer, config: &Config) -> Option<Self> {
        let cipher = offer.best_cipher(config)?;
        let exporter = offer.has(IvProto::TLS_KEY_EXPORT);
        // Flags are words of `protocol-flags`, which came with control channel exit; both extras
        // are only known together with exported keys.
        let cc_exit = offer.has(IvProto::CC_EXIT_NOTIFY);
        let extras = cc_exit && exporter;
        let data_v2 = offer.has(IvProto::DATA_V2);
        Some(Self {
            cipher,
            framing: offer.framing(),
            push_cipher: offer.ncp || offer.ciphers.is_some(),
            exporter,
            cc_exit,
            dynamic_tls_crypt: extras && offer.has(IvProto::DYN_TLS_CRYPT),
            epoch: extras && data_v2 && cipher.is_aead() && offer.has(IvProto::DATA_EPOCH),
            data_v2,
            tun_mtu: offer.mtu.map(|theirs| theirs.min(config.device.mtu)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CipherName::{Aes128Gcm, Aes256Gcm, ChaCha20Poly1305};

    const OURS: [CipherName; 3] = [ChaCha20Poly1305, Aes256Gcm, Aes128Gcm];
    const OCC: &str = "V4,dev-type tun,cipher AES-128-GCM,auth [null-digest]";

    fn pick(peer_info: &str, options: &str, fallback: Option<CipherName>) -> Option<CipherName> {
        Offer::read(peer_info, options).cipher(&OURS, fallback)
    }

    #[test]
    fn our_preference_decides_among_what_the_peer_lists() {
        assert_eq!(pick("IV_CIPHERS=AES-128-GCM:CHACHA20-POLY1305\n", "", None), Some(OURS[0]));
        assert_eq!(pick("IV_CIPHERS=AES-128-GCM:AES-256-GCM\n", "", None), Some(Aes256Gcm));
        assert_eq!(pick("IV_CIPHERS=aes-128-gcm\n", "", None), None, "names are exact");
        assert_eq!(pick("IV_CIPHERS=AES-128-GCMX\n", "", None), None);
    }

    #[test]
    fn peers_without_a_list_are_judged_by_ncp_and_options_string() {
        assert_eq!(pick("IV_NCP=2\n", "", None), Some(Aes256Gcm));
        assert_eq!(pick("", OCC, None), Some(Aes128Gcm));
        assert_eq!(pick("IV_CIPHERS=BF-CBC\n", OCC, None), None, "the list says it all");
        assert_eq!(pick("", "", None), None);
        assert_eq!(pick("", "", Some(Aes128Gcm)), Some(Aes128Gcm));
        assert_eq!(pick("", "V4,cipher BF-CBC", Some(Aes128Gcm)), None);
    }

    /// ChaCha20 where either processor has no instructions for AES, unless somebody wants it otherwise.
    #[test]
    fn the_fastest_cipher_for_both_is_taken_where_the_order_is_ours() {
        let pick = |lines: &str, has_aes: bool, info: &str| {
            let config = crate::config::tests::on_processor(lines, has_aes);
            let info = format!("IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\n{info}");
            Terms::negotiate(&Offer::read(&info, ""), &config).unwrap().cipher
        };
        let (fast, slow) = ("IV_SIXGATE_AES=1\n", "IV_SIXGATE_AES=0\n");
        assert_eq!(pick("", true, fast), Aes256Gcm);
        assert_eq!(pick("", true, ""), Aes256Gcm, "others do not say");
        assert_eq!(pick("", true, slow), ChaCha20Poly1305);
        for info in [fast, slow, ""] {
            assert_eq!(pick("", false, info), ChaCha20Poly1305);
            for has_aes in [true, false] {
                assert_eq!(
                    pick("data-ciphers AES-128-GCM:CHACHA20-POLY1305", has_aes, info),
                    Aes128Gcm
                );
            }
        }
        let config = crate::config::tests::on_processor("", true);
        let without = Offer::read("IV_CIPHERS=AES-128-GCM\nIV_SIXGATE_AES=0\n", "");
        assert_eq!(without.best_cipher(&config), Some(Aes128Gcm), "what there is");
    }

    #[test]
    fn clients_that_frame_are_moved_to_what_they_know() {
        let of = |info, options| Offer::read(info, options).framing();
        assert_eq!(of("IV_COMP_STUBv2=1\n", OCC), Framing::None);
        assert_eq!(of("IV_COMP_STUBv2=1\n", "V4,comp-lzo,tls-client"), Framing::StubV2);
        assert_eq!(of("IV_LZO=1\n", "V4,comp-lzo,tls-client"), Framing::Lzo);
    }

    /// Each is used with clients that say they know it, and with no others.
    #[test]
    fn one_ability_never_implies_another() {
        let config = crate::config::tests::server("").config;
        let terms = |left_out: IvProto| {
            let all = [
                IvProto::DATA_V2,
                IvProto::TLS_KEY_EXPORT,
                IvProto::CC_EXIT_NOTIFY,
                IvProto::DYN_TLS_CRYPT,
                IvProto::DATA_EPOCH,
            ];
            let some = all.into_iter().filter(|bit| *bit != left_out);
            let proto = some.fold(IvProto::default(), IvProto::with);
            let info = format!("IV_CIPHERS=AES-256-GCM\nIV_PROTO={}\n", proto.0);
            let terms = Terms::negotiate(&Offer::read(&info, ""), &config).unwrap();
            let Terms { exporter, cc_exit, dynamic_tls_crypt, epoch, data_v2, .. } = terms;
            [data_v2, exporter, cc_exit, dynamic_tls_crypt, epoch]
        };
        assert_eq!(terms(IvProto::default()), [true; 5]);
        assert_eq!(terms(IvProto::DATA_V2), [false, true, true, true, false]);
        // The later ones are only told together with the earlier ones [7.2].
        assert_eq!(terms(IvProto::TLS_KEY_EXPORT), [true, false, true, false, false]);
        assert_eq!(terms(IvProto::CC_EXIT_NOTIFY), [true, true, false, false, false]);
        assert_eq!(terms(IvProto::DYN_TLS_CRYPT), [true, true, true, false, true]);
        assert_eq!(terms(IvProto::DATA_EPOCH), [true, true, true, true, false]);
    }

    #[test]
    fn the_advice_names_the_option_and_the_cipher() {
        let advice = |info, options| Offer::read(info, options).advice(&OURS);
        let text = advice("IV_CIPHERS=BF-CBC\n", OCC);
        assert_eq!(text, "it offers only BF-CBC: set `data-ciphers CHACHA20-POLY1305` on it");
        assert!(advice("", "V4,cipher BF-CBC").contains("set `cipher CHACHA20"));
        assert!(advice("", "").contains("data-ciphers-fallback"));
    }

    #[test]
    fn the_first_mention_counts_and_text_is_made_printable() {
        let offer = Offer::read("IV_VER=2.6.14\nIV_VER=9\nIV_PLAT=li\x1b,nux\nIV_MTU=70000\n", "");
        assert_eq!((offer.version.as_str(), offer.platform.as_str()), ("2.6.14", "li_,nux"));
        assert_eq!(offer.mtu, Some(u16::MAX));
        assert!(!offer.request_push() && !offer.auth_fail_temp());
        assert!(Offer::read("IV_PROTO=990\n", "").request_push());
    }
}
