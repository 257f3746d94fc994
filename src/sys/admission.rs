//! A server's decisions and chores: who is shut out, and certificates that renew themselves.
//!
//! The certificate itself was checked in the handshake. Asked at admission is what may have
//! changed since the server started: the revocation list of `crl-verify`, whose file is read again
//! when it changes, and the serial numbers that `sixgate client revoke` has named; then the client's own file
//! is read. What is refused here is told to the client and logged by the engine.
//!
//! A configuration that is read again replaces all of that in one step, or nothing.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use webpki::{BorrowedCertRevocationList, CertRevocationList};

use super::client_files::ClientFolder;
use super::client_files::Survey;
use super::event_loop::{Reload, Upkeep};
use super::keeper::Request;
use super::reload::{Next, Source};
use super::store::Reading;
use super::{remarks, state};
use crate::config::ccd::DEFAULT;
use crate::config::{ClientSettings, Config, Role, Tls};
use crate::engine::{AdmitRequest, Engine, Occasion, Reply};
use crate::pki::certificate::{self, Certificate};
use crate::server::Server;
use crate::time::{Instant, Now, UnixTime};

/// How often a renewal is considered. Its cost is reading one file; routers get the time from the
/// network some time after the start, and a day would be long to wait for that.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);

/// From when on it is warned of certificates that end and that nothing renews.
const NOTICE: u64 = 30 * 24 * 3600;
/// And how often.
const NOTICE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What a server's engine is told beside the traffic.
pub trait Serves: Engine {
    /// New certificates or a new revocation list; on error everything stays.
    fn replace_identity(&mut self, tls: &Tls) -> Result<(), String>;
    /// Addresses that a per-client file names.
    fn reserve(&mut self, name: &str, settings: &ClientSettings);
    /// Another configuration; on error everything stays.
    fn reload(&mut self, now: Now, config: Arc<Config>) -> Result<(), String>;
}

impl Serves for Server {
    fn replace_identity(&mut self, tls: &Tls) -> Result<(), String> {
        Self::replace_identity(self, tls)
    }

    fn reserve(&mut self, name: &str, settings: &ClientSettings) {
        Self::reserve(self, name, settings);
    }

    fn reload(&mut self, now: Now, config: Arc<Config>) -> Result<(), String> {
        Self::reload(self, now, config)
    }
}

/// [`Upkeep`] of a server.
pub struct ServerUpkeep {
    source: Rc<Source>,
    /// What is in force, but for certificates and revocations, which may be newer in `tls`.
    config: Arc<Config>,
    tls: Tls,
    /// The folder that the certificates are renewed from.
    state: Option<PathBuf>,
    /// Modification time of the revocation list that `tls.crl` holds, and what is in it.
    crl_time: Option<SystemTime>,
    crl: Vec<CertRevocationList<'static>>,
    /// `client-config-dir`.
    folder: Option<ClientFolder>,
    /// When to warn of the end of certificates again.
    warn_at: Instant,
}

impl ServerUpkeep {
    /// For a server with this configuration, which came from `source`.
    pub fn new(source: Rc<Source>, config: Arc<Config>) -> Self {
        let folder = match &config.role {
            Role::Server(role) => ClientFolder::new(role),
            Role::Client(_) => None,
        };
        let (tls, state) = (config.tls.clone(), config.process.state.clone());
        let crl_time = None;
        let crl = Vec::new();
        let warn_at = Instant::ZERO;
        let mut upkeep = Self { source, config, tls, state, crl_time, crl, folder, warn_at };
        upkeep.crl_time = upkeep.crl_modified();
        upkeep.parse_crl();
        upkeep
    }

    /// Says what looks like a mistake, and has the engine keep the addresses that files name.
    pub fn survey<E: Serves>(&self, engine: &mut E) {
        let Role::Server(role) = &self.config.role else { return };
        let survey: Survey = match &self.folder {
            Some(folder) => {
                self.source.access.reading(Request::Survey, "", |disk| folder.survey(disk))
            }
            None => Survey::default(),
        };
        remarks::server(role, &survey).iter().for_each(|remark| log::warn!("{remark}"));
        for (name, settings) in survey.settings.iter().filter(|(name, _)| name != DEFAULT) {
            engine.reserve(name, settings);
        }
    }

    fn crl_modified(&self) -> Option<SystemTime> {
        let (path, _) = self.tls.crl.as_ref()?;
        let look = |disk: &dyn Reading| disk.modified(path);
        self.source.access.reading(Request::CrlTime, "", look).ok().flatten()
    }

    fn parse_crl(&mut self) {
        let Some((path, bytes)) = &self.tls.crl else { return };
        match parse_crl(bytes) {
            Ok(crl) => self.crl = crl,
            Err(error) => log::error!("crl-verify {}: {error}", path.display()),
        }
    }

    /// Reads the revocation list again if it has changed.
    fn refresh_crl<E: Serves>(&mut self, engine: &mut E) {
        let Some((path, _)) = &self.tls.crl else { return };
        let path = path.clone();
        let time = self.crl_modified();
        if time.is_none() || time == self.crl_time {
            return;
        }
        let read = self.source.access.reading(Request::Crl, "", |disk| disk.read(&path));
        match read.and_then(|bytes| Ok((parse_crl(&bytes)?, bytes))) {
            Ok((crl, bytes)) => {
                log::info!("crl-verify {}: read again", path.display());
                self.crl = crl;
                self.tls.crl = Some((path, bytes));
                self.replace(engine);
            }
            Err(error) => {
                let path = path.display();
                log::error!("crl-verify {path}: {error}; going on with what it said before");
            }
        }
        // Also after an error: it is reported once per change of the file.
        self.crl_time = time;
    }

    /// Says when certificates end, if that is soon.
    fn warn_of_expiry(&mut self, now: Now) {
        if now.mono < self.warn_at {
            return;
        }
        self.warn_at = now.mono + NOTICE_EVERY;
        for (whose, until) in self.expiries() {
            if until.0 < now.unix.0.saturating_add(NOTICE) {
                log::warn!("the certificate of the {whose} ends at {}", certificate::date(until));
            }
        }
    }

    fn expiries(&self) -> Vec<(&'static str, UnixTime)> {
        let end = |pem| Some(Certificate::from_pem(pem).ok()?.not_after);
        let all = [("server", end(&self.tls.cert)), ("authority", end(&self.tls.ca))];
        all.into_iter().filter_map(|(whose, until)| Some((whose, until?))).collect()
    }

    fn replace<E: Serves>(&self, engine: &mut E) {
        if let Err(error) = engine.replace_identity(&self.tls) {
            log::error!("new certificates or revocation list not taken: {error}");
        }
    }

    fn renew<E: Serves>(&mut self, engine: &mut E, now: Now) {
        let Some(state) = &self.state else { return };
        match self.source.access.renew(state, now.unix) {
            Ok(None) => {}
            Ok(Some(new)) if *self.tls.cert == **new.replaces => {
                let expires = certificate::date(new.expires);
                log::info!("the server's certificate is renewed, now until {expires}");
                self.tls.cert = new.certificate;
                self.tls.key = new.key;
                self.replace(engine);
            }
            Ok(Some(_)) => log::warn!(
                "a new certificate is in {}, but this server was started with another",
                state.display()
            ),
            Err(error) => log::error!("{error}"),
        }
    }
}

impl<E: Serves> Upkeep<E> for ServerUpkeep {
    fn admit(
        &mut self,
        engine: &mut E,
        _: Now,
        request: &AdmitRequest,
    ) -> Result<Box<ClientSettings>, String> {
        self.refresh_crl(engine);
        let listed = self.crl.iter().any(|crl| is_listed(crl, &request.serial));
        if listed || self.tls.revoked.contains(&request.serial) {
            return Err("the certificate is revoked".into());
        }
        match &self.folder {
            // What was decided when it came in holds for as long as it stays.
            Some(folder) if request.occasion != Occasion::Renegotiation => {
                let name = &request.common_name;
                let look = |disk: &dyn Reading| folder.settings(name, disk);
                self.source.access.reading(Request::Client, name, look)
            }
            Some(_) | None => Ok(Box::default()),
        }
    }

    fn revoke(&mut self, serials: &[Vec<u8>]) {
        for serial in serials {
            if !self.tls.revoked.contains(serial) {
                self.tls.revoked.push(serial.clone());
            }
        }
    }

    fn tend(&mut self, engine: &mut E, now: Now) -> Instant {
        self.renew(engine, now);
        self.warn_of_expiry(now);
        self.refresh_crl(engine);
        // In case somebody revoked while the control socket could not be reached.
        let read = |state: &PathBuf| {
            let look = |disk: &dyn Reading| state::revoked(state, disk);
            self.source.access.reading(Request::Revoked, "", look).ok()
        };
        if let Some(list) = self.state.as_ref().and_then(read) {
            let mut new = list.serials();
            new.retain(|serial| !self.tls.revoked.contains(serial));
            if !new.is_empty() {
                Upkeep::<E>::revoke(self, &new);
                engine.handle_reply(now, Reply::Revoked(new));
            }
        }
        now.mono + RENEWAL_CHECK
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn certificates(&self) -> Vec<(&'static str, UnixTime)> {
        self.expiries()
    }

    fn reload(&mut self, engine: &mut E, now: Now) -> Reload {
        let config: Arc<Config> = match self.source.read_again(&self.config) {
            Next::Old => return Reload::Kept,
            Next::Restart(config) => return Reload::Restart(config),
            Next::Change(config) => Arc::from(config),
        };
        if let Err(error) = engine.reload(now, Arc::clone(&config)) {
            log::error!("the configuration is not taken, the old one stays in force: {error}");
            return Reload::Kept;
        }
        self.source.access.tell(Request::InForce);
        let next = Self::new(Rc::clone(&self.source), Arc::clone(&config));
        let old = core::mem::replace(self, next).config;
        self.survey(engine);
        Reload::Changed { old, new: config }
    }
}

/// One or more lists in PEM form, or one in DER form.
fn parse_crl(bytes: &[u8]) -> Result<Vec<CertRevocationList<'static>>, String> {
    let parse = |der: &[u8]| {
        BorrowedCertRevocationList::from_der(der)
            .and_then(|list| Ok(CertRevocationList::Owned(list.to_owned()?)))
            .map_err(|error| format!("not a revocation list: {error}"))
    };
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    if lists.is_empty() {
        return Ok(vec![parse(bytes)?]);
    }
    let pem = |list: Result<CertificateRevocationListDer<'_>, _>| match list {
        Ok(der) => parse(&der),
        Err(error) => Err(format!("damaged: {error}")),
    };
    lists.into_iter().map(pem).collect()
}

/// Lists hold serial numbers as DER has them: with a zero byte before a first bit that is set.
fn is_listed(list: &CertRevocationList<'_>, serial: &[u8]) -> bool {
    let padded = [&[0], serial].concat();
    [serial, &padded].into_iter().any(|serial| matches!(list.find_serial(serial), Ok(Some(_))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::buf::PacketMut;
    use crate::engine::{ClientInfo, Command, DropCounters, Endpoint, Engine, PeerId, Verdict};

    /// Remembers what it was told.
    #[derive(Default)]
    struct Told {
        replaced: usize,
        revoked: Vec<Vec<u8>>,
        drops: DropCounters,
    }

    impl Serves for Told {
        fn replace_identity(&mut self, _: &Tls) -> Result<(), String> {
            self.replaced += 1;
            Ok(())
        }
        fn reserve(&mut self, _: &str, _: &ClientSettings) {}
        fn reload(&mut self, _: Now, _: Arc<Config>) -> Result<(), String> {
            Ok(())
        }
    }

    impl Engine for Told {
        fn handle_udp(&mut self, _: Now, _: Endpoint, _: &mut PacketMut<'_>) -> Verdict {
            Verdict::Consumed
        }
        fn handle_tun(&mut self, _: Now, _: &mut PacketMut<'_>) -> Verdict {
            Verdict::Consumed
        }
        fn handle_timeout(&mut self, _: Now) {}
        fn handle_reply(&mut self, _: Now, reply: Reply) {
            if let Reply::Revoked(serials) = reply {
                self.revoked.extend(serials);
            }
        }
        fn poll_transmit(&mut self, _: Now, _: &mut PacketMut<'_>) -> Option<Endpoint> {
            None
        }
        fn poll_broadcast(&mut self, _: Now, _: &[u8], _: &mut PacketMut<'_>) -> Option<Endpoint> {
            None
        }
        fn poll_command(&mut self) -> Option<Command> {
            None
        }
        fn poll_timeout(&self) -> Option<Instant> {
            None
        }
        fn drops(&self) -> &DropCounters {
            &self.drops
        }
        fn clients(&self) -> Vec<ClientInfo> {
            Vec::new()
        }
    }

    fn upkeep(crl: Option<(PathBuf, Vec<u8>)>) -> ServerUpkeep {
        let mut config = crate::config::tests::server("server-ipv6 fd00:1::/64").config;
        config.tls.crl = crl;
        config.tls.revoked = vec![vec![9]];
        ServerUpkeep::new(Rc::new(Source::arguments(Vec::new())), Arc::new(config))
    }

    fn admit(upkeep: &mut ServerUpkeep, engine: &mut Told, serial: &[u8]) -> bool {
        let request = AdmitRequest {
            ticket: 1,
            peer: PeerId(0),
            common_name: "laptop".into(),
            serial: serial.to_vec(),
            from: Endpoint::new("192.0.2.1:1".parse().unwrap()),
            occasion: Occasion::Arrival,
        };
        upkeep.admit(engine, Now::default(), &request).is_ok()
    }

    /// A list of one serial number that begins with a set bit, as DER.
    fn crl(serial: u8) -> Vec<u8> {
        use rcgen::{
            CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair,
            KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
        };
        let mut ca = CertificateParams::default();
        ca.key_usages = vec![KeyUsagePurpose::CrlSign];
        let issuer = Issuer::new(ca, KeyPair::generate().unwrap());
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2036, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from_slice(&[serial, 2, 3]),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap().der().to_vec()
    }

    #[test]
    fn named_serial_numbers_are_shut_out() {
        let (mut upkeep, mut engine) = (upkeep(None), Told::default());
        assert!(admit(&mut upkeep, &mut engine, &[8]) && !admit(&mut upkeep, &mut engine, &[9]));
        Upkeep::<Told>::revoke(&mut upkeep, &[vec![8]]);
        assert!(!admit(&mut upkeep, &mut engine, &[8]));
    }

    #[test]
    fn a_changed_revocation_list_is_read_and_a_broken_one_is_not_trusted() {
        let path = std::env::temp_dir().join(format!("sixgate-crl-{}", std::process::id()));
        // Each version gets a time of its own: the clock of the file system may be coarse.
        let write = |bytes: &[u8], seconds| {
            fs::write(&path, bytes).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        write(&crl(0x81), 1_000_000);
        let bytes = fs::read(&path).unwrap();
        let (mut upkeep, mut engine) = (upkeep(Some((path.clone(), bytes))), Told::default());
        assert!(!admit(&mut upkeep, &mut engine, &[0x81, 2, 3]));
        assert!(admit(&mut upkeep, &mut engine, &[0x71, 2, 3]));
        assert_eq!(engine.replaced, 0);
        write(&crl(0x71), 2_000_000);
        assert!(!admit(&mut upkeep, &mut engine, &[0x71, 2, 3]));
        assert!(admit(&mut upkeep, &mut engine, &[0x81, 2, 3]));
        assert_eq!(engine.replaced, 1);
        write(b"not a list", 3_000_000);
        assert!(!admit(&mut upkeep, &mut engine, &[0x71, 2, 3]), "the old list still holds");
        fs::remove_file(&path).unwrap();
        assert!(!admit(&mut upkeep, &mut engine, &[0x71, 2, 3]));
        assert_eq!(engine.replaced, 1);
    }
}
