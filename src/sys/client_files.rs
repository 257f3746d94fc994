//! `client-config-dir` on disk: which file is a client's, and what all of them say together [9.5].
//!
//! A file is read when its client connects, so that a change counts from the next connection on.
//! Whatever is wrong with it keeps the client out: its addresses and routes would be somebody
//! else's otherwise. What lines mean is `config::ccd`'s business.

use std::path::PathBuf;

use ipnet::IpNet;

use super::store::Reading;
use crate::config::ccd::{self, ClientFiles, ClientSettings, DEFAULT};
use crate::config::{Config, ConfigError, Diagnostic, Role, ServerRole, TunnelRoute, Via};
use crate::sorted::SortedMap;

/// What a client is told when its file cannot be used; the log has the rest.
const UNUSABLE: &str = "the server's settings for this client are not usable";

/// The folder of a server's per-client files.
pub struct ClientFolder {
    files: ClientFiles,
    role: ServerRole,
}

/// Adds what clients' files say about the whole server: the kernel's routes to networks behind
/// them, and the way there for all other clients.
pub fn publish(config: &mut Config, disk: &dyn Reading) {
    let Role::Server(role) = &mut config.role else { return };
    let Some(folder) = ClientFolder::new(role) else { return };
    // Looked at while that is allowed: another user could not tell that it is not there.
    if folder.files.optional && !matches!(disk.modified(&folder.files.dir), Ok(Some(_))) {
        role.client_files = None;
        return;
    }
    for (name, settings) in folder.survey(disk).settings {
        for net in settings.published.into_iter().filter(|_| name != DEFAULT) {
            let route = TunnelRoute { destination: net, via: Via::Tunnel, metric: 0 };
            // With `route-export`, there is a way while there is the client.
            let known = role.routes.iter().any(|known| known.destination == net);
            if !known && role.export.is_none() {
                role.routes.push(route);
            }
            let option = match net {
                IpNet::V4(net) => format!("route {} {}", net.network(), net.netmask()),
                IpNet::V6(net) => format!("route-ipv6 {net}"),
            };
            if !role.push.contains(&option) {
                role.push.push(option);
            }
        }
    }
}

/// All files together, as of now.
#[derive(Debug, Default)]
pub struct Survey {
    /// What each usable file says, by its name.
    pub settings: Vec<(String, ClientSettings)>,
    /// What is wrong, file by file and between them.
    pub remarks: Vec<String>,
}

impl ClientFolder {
    /// The folder that a server is configured with, if there is one.
    pub fn new(role: &ServerRole) -> Option<Self> {
        Some(Self { files: role.client_files.clone()?, role: role.clone() })
    }

    /// What is different for the client of this name. The error is for the client.
    pub fn settings(&self, name: &str, disk: &dyn Reading) -> Result<Box<ClientSettings>, String> {
        let shown = name.escape_debug();
        let own = ccd::file_name(name).ok_or_else(|| {
            log::error!("'{shown}': no file of client-config-dir can be called that");
            UNUSABLE.to_owned()
        })?;
        if self.files.exclusive {
            // Or everybody whose name is that would be let in by the file for all others.
            if own == DEFAULT {
                return Err("this name is not for a client".to_owned());
            }
            return match self.find(&own, disk)? {
                Some(path) => self.load(name, path, disk),
                None => Err("no file for it in client-config-dir, and ccd-exclusive is set".into()),
            };
        }
        for file in [own.as_str(), DEFAULT] {
            if let Some(path) = self.find(file, disk)? {
                return self.load(name, path, disk);
            }
        }
        Ok(Box::default())
    }

    /// The path of a file if it is there. One that cannot be looked at may well be there.
    fn find(&self, file: &str, disk: &dyn Reading) -> Result<Option<PathBuf>, String> {
        let path = self.files.dir.join(file);
        match disk.modified(&path) {
            Ok(time) => Ok(time.map(|_| path)),
            Err(error) => {
                log::error!("{}: {error}", path.display());
                Err(UNUSABLE.to_owned())
            }
        }
    }

    fn load(
        &self,
        name: &str,
        path: PathBuf,
        disk: &dyn Reading,
    ) -> Result<Box<ClientSettings>, String> {
        match ccd::load(&path, &self.files.base, disk, &self.role) {
            Ok((settings, warnings)) => {
                warnings.iter().for_each(|warning| log::warn!("{warning}"));
                Ok(Box::new(settings))
            }
            Err(ConfigError { problems, warnings }) => {
                warnings.iter().for_each(|warning| log::warn!("{warning}"));
                let shown = name.escape_debug();
                problems.iter().for_each(|p| log::error!("{p}; '{shown}' is kept out"));
                Err(UNUSABLE.to_owned())
            }
        }
    }

    /// Reads all files, and compares them with each other.
    pub fn survey(&self, disk: &dyn Reading) -> Survey {
        let mut survey = Survey::default();
        let names = match disk.list(&self.files.dir) {
            Ok(names) => names,
            Err(error) => {
                let dir = self.files.dir.display();
                survey.remarks.push(format!("client-config-dir {dir}: {error}"));
                return survey;
            }
        };
        // What editors leave behind is not meant for clients.
        let meant = |name: &String| !name.starts_with('.') && !name.ends_with('~');
        for name in names.into_iter().filter(meant) {
            let path = self.files.dir.join(&name);
            match ccd::load(&path, &self.files.base, disk, &self.role) {
                Ok((settings, warnings)) => {
                    survey.remarks.extend(warnings.iter().map(Diagnostic::to_string));
                    survey.settings.push((name, settings));
                }
                Err(ConfigError { problems, warnings }) => {
                    survey.remarks.extend(warnings.iter().map(Diagnostic::to_string));
                    let kept_out = |p: &Diagnostic| format!("{p}; its client is kept out");
                    survey.remarks.extend(problems.iter().map(kept_out));
                }
            }
        }
        survey.compare();
        survey
    }
}

impl Survey {
    /// Who has an address or a network of these settings already, and which.
    pub fn rival(&self, own: &str, settings: &ClientSettings) -> Option<(&str, IpNet)> {
        let wanted: Vec<IpNet> = claims(settings).collect();
        let others = self.settings.iter().filter(|(name, _)| name != own);
        others.into_iter().find_map(|(name, theirs)| {
            let net = claims(theirs).find(|net| wanted.contains(net))?;
            Some((name.as_str(), net))
        })
    }

    /// Two files that name the same address or network, and a file for many that names one.
    fn compare(&mut self) {
        let mut owners: SortedMap<IpNet, &str> = SortedMap::new();
        for (name, settings) in &self.settings {
            let mut named = Vec::new();
            for net in claims(settings) {
                match owners.insert(net, name) {
                    Some(other) if other != name => self.remarks.push(format!(
                        "client-config-dir: {net} is claimed by both {other} and {name}"
                    )),
                    Some(_) | None => named.push(net.to_string()),
                }
            }
            if name == DEFAULT && !named.is_empty() {
                self.remarks.push(format!(
                    "client-config-dir: {DEFAULT} is for many clients, but gives each of them {}",
                    named.join(", ")
                ));
            }
        }
    }
}

/// What a file claims for its client alone.
fn claims(settings: &ClientSettings) -> impl Iterator<Item = IpNet> + '_ {
    let v4 = settings.v4.map(|fixed| IpNet::from(std::net::IpAddr::V4(fixed.address)));
    let v6 = settings.v6.map(|fixed| IpNet::from(std::net::IpAddr::V6(fixed.net.addr())));
    [v4, v6].into_iter().flatten().chain(settings.behind.iter().copied())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::{Files, Role, load_file};
    use crate::sys::store::DiskFiles;

    /// A configuration in memory.
    struct Main(String);

    impl Files for Main {
        fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
            let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAA==\n-----END {kind}-----\n");
            Ok(match path.to_str() {
                Some("main.conf") => self.0.clone(),
                Some("key") => pem("PRIVATE KEY"),
                _ => pem("CERTIFICATE"),
            }
            .into_bytes())
        }

        fn has_aes(&self) -> bool {
            true
        }
    }

    fn folder(test: &str, lines: &str, files: &[(&str, &str)]) -> ClientFolder {
        let name = format!("sixgate-ccd-{test}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _old = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("ccd")).unwrap();
        for (name, text) in files {
            fs::write(dir.join("ccd").join(name), text).unwrap();
        }
        fs::write(dir.join("secret"), "ifconfig-push 10.8.0.66 255.255.255.0\n").unwrap();
        let text = format!(
            "server 10.8.0.0 255.255.255.0\nca ca\ncert cert\nkey key\n\
             client-config-dir {}/ccd\n{lines}\n",
            dir.display()
        );
        let config = load_file("main.conf", &Main(text)).unwrap().config;
        let Role::Server(role) = config.role else { panic!("a client") };
        ClientFolder::new(&role).unwrap()
    }

    fn end(folder: &ClientFolder) {
        fs::remove_dir_all(folder.files.dir.parent().unwrap()).unwrap();
    }

    fn address(folder: &ClientFolder, name: &str) -> Result<Option<String>, String> {
        let settings = folder.settings(name, &DiskFiles)?;
        Ok(settings.v4.map(|fixed| fixed.address.to_string()))
    }

    const OWN: &str = "ifconfig-push 10.8.0.50 255.255.255.0\n";

    #[test]
    fn the_own_file_comes_before_the_one_for_all() {
        let files = [("laptop", OWN), ("DEFAULT", "push-reset\npush \"topology subnet\"\n")];
        let both = folder("both", "", &files);
        assert_eq!(address(&both, "laptop"), Ok(Some("10.8.0.50".to_owned())));
        assert_eq!(both.settings("phone", &DiskFiles).unwrap().push.len(), 2);
        let all = both.survey(&DiskFiles);
        assert_eq!((all.settings.len(), all.remarks.len()), (2, 0), "{:?}", all.remarks);
        end(&both);
        let none = folder("none", "", &[]);
        assert_eq!(none.settings("laptop", &DiskFiles), Ok(Box::default()));
        end(&none);
    }

    #[test]
    fn exclusive_means_a_file_of_its_own() {
        let files = [("laptop", OWN), ("DEFAULT", "")];
        let folder = folder("exclusive", "ccd-exclusive", &files);
        assert!(folder.settings("laptop", &DiskFiles).is_ok());
        assert!(folder.settings("phone", &DiskFiles).unwrap_err().contains("ccd-exclusive"));
        assert!(folder.settings("DEFAULT", &DiskFiles).is_err());
        end(&folder);
    }

    #[test]
    fn no_name_reaches_a_file_outside() {
        let folder = folder("outside", "", &[("__secret", OWN)]);
        assert_eq!(address(&folder, "../secret"), Ok(None));
        for name in ["", ".", ".."] {
            assert!(folder.settings(name, &DiskFiles).is_err(), "{name:?}");
        }
        end(&folder);
    }

    #[test]
    fn a_file_that_cannot_be_used_keeps_its_client_out() {
        let folder = folder("broken", "", &[("laptop", "iroute\n"), ("phone", "")]);
        fs::create_dir(folder.files.dir.join("tablet")).unwrap();
        for name in ["laptop", "tablet"] {
            assert_eq!(folder.settings(name, &DiskFiles).unwrap_err(), UNUSABLE);
        }
        assert!(folder.settings("phone", &DiskFiles).is_ok());
        let all = folder.survey(&DiskFiles);
        assert_eq!(all.settings.len(), 1);
        assert!(all.remarks.iter().any(|text| text.contains("laptop:1: ")), "{:?}", all.remarks);
        end(&folder);
    }

    #[test]
    fn what_files_say_about_everybody_is_added_once() {
        let both = "iroute 192.168.50.0 255.255.255.0\nroute 192.168.50.0 255.255.255.0\n";
        let silent = "iroute-ipv6 fd00:50::/64\n";
        let folder = folder("publish", "", &[("site", both), ("other", silent), ("DEFAULT", both)]);
        let text = format!(
            "server 10.8.0.0 255.255.255.0\nca ca\ncert cert\nkey key\nclient-config-dir {}\n",
            folder.files.dir.display()
        );
        let mut config = load_file("main.conf", &Main(text)).unwrap().config;
        publish(&mut config, &DiskFiles);
        publish(&mut config, &DiskFiles);
        let Role::Server(role) = &config.role else { panic!("a client") };
        let routes: Vec<_> =
            role.routes.iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(routes, ["192.168.50.0/24"]);
        assert_eq!(role.push, ["route 192.168.50.0 255.255.255.0"]);
        end(&folder);
    }

    #[test]
    fn a_state_folders_files_need_not_be_there() {
        let folder = folder("state", "", &[]);
        let state = folder.files.dir.parent().unwrap().to_owned();
        let text = format!(
            "server 10.8.0.0 255.255.255.0\nca ca\ncert cert\nkey key\nsixgate-state {}\n",
            state.display()
        );
        let files = |text: &str| {
            let mut config = load_file("main.conf", &Main(text.to_owned())).unwrap().config;
            publish(&mut config, &DiskFiles);
            let Role::Server(role) = config.role else { panic!("a client") };
            role.client_files.map(|files| files.dir)
        };
        assert_eq!(files(&text), Some(state.join("ccd")));
        let elsewhere = format!("{text}client-config-dir {}\n", state.display());
        assert_eq!(files(&elsewhere), Some(state.clone()));
        fs::remove_dir(&folder.files.dir).unwrap();
        assert_eq!(files(&text), None);
        // Who insists on files has to have them.
        assert_eq!(files(&format!("{text}ccd-exclusive\n")), Some(state.join("ccd")));
        end(&folder);
    }

    #[test]
    fn files_that_contradict_each_other_are_named() {
        let files = [("a", OWN), ("b", OWN), ("DEFAULT", "iroute 10.8.0.64 255.255.255.192\n")];
        let folder = folder("twice", "", &files);
        let remarks = folder.survey(&DiskFiles).remarks;
        let both = |text: &&String| text.contains("10.8.0.50/32 is claimed by both a and b");
        let many = |text: &&String| text.contains("DEFAULT is for many clients");
        assert!(remarks.iter().any(|text| both(&text)), "{remarks:?}");
        assert!(remarks.iter().any(|text| many(&text)), "{remarks:?}");
        end(&folder);
    }
}
