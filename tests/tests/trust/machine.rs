//! A host of the laboratory with trust stores of its own, a user who has
//! browsers there, and a web server that clients of that host ask.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use innermesh_tests::{
    Agent, Finished, Host, Lab, Process,
    agent::{DOMAIN, PATIENCE, program},
    leave_out, skip, wait_for,
};
use serde_json::Value;
use tempfile::TempDir;

use super::kinds;

/// A user whom only the laboratory knows.
pub const USER: &str = "4711";
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A host with stores of its own.
pub struct Machine<'lab> {
    pub host: &'lab Host,
    home: PathBuf,
    folder: TempDir,
    /// The kinds of its stores, as they are told.
    pub stores: Vec<&'static str>,
}

impl<'lab> Machine<'lab> {
    /// `None`, said aloud, where this machine lacks what it takes.
    pub fn new(lab: &'lab Lab, name: &str) -> Option<Self> {
        let host = &lab.hosts[0];
        let has = |program: &str| host.run(&["which", program]).code == 0;
        for tool in ["update-ca-certificates", "certutil", "vfychain"] {
            if !has(tool) || !Path::new("/etc/ca-certificates/update.d").is_dir() {
                skip(format!("{tool} isn't installed as Debian has it"));
                return None;
            }
        }
        // The user has to get at the agent's socket, and at the program.
        for place in host.directory.ancestors().take(2) {
            fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("a folder");
        }
        let folder = TempDir::with_prefix("innermesh-trust-").expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a folder");
        fs::copy(program(), folder.path().join("agent")).expect("the program");
        let home = folder.path().join("home");
        let passwd = fs::read_to_string("/etc/passwd").expect("the users");
        let user = format!("tester:x:{USER}:{USER}::{}:/bin/sh\n", home.display());
        fs::write(folder.path().join("passwd"), passwd + &user).expect("a file");
        // Debian's hook would make the real Java's keystore anew, through dpkg.
        let script = r#"cd "$1"
            cp -a /etc/ssl/certs certs
            mkdir anchors hooks home
            mount --bind certs /etc/ssl/certs
            mount --bind anchors /usr/local/share/ca-certificates
            mount --bind hooks /etc/ca-certificates/update.d
            mount --bind passwd /etc/passwd
            update-ca-certificates --fresh"#;
        let path = folder.path().to_string_lossy().into_owned();
        let _ = host.run(&["sh", "-euc", script, "sh", &path]).ok();
        let mut stores = vec!["debian", "chromium", "firefox"];
        if has("keytool") {
            stores.push("java")
        } else {
            leave_out(format!("{name}: Java's keystore: there is no keytool"))
        }
        let machine = Self {
            host,
            home,
            folder,
            stores,
        };
        let _ = machine.database(&machine.databases()[0], "");
        let _ = machine.database(&machine.databases()[1], "");
        Some(machine)
    }

    pub fn agent(&self, name: &str) -> Agent<'lab> {
        let mut agent = Agent::new(self.host, name);
        fs::set_permissions(&agent.dir, fs::Permissions::from_mode(0o755)).expect("a folder");
        // Not this machine's, whatever the test was started with.
        agent.set("JAVA_HOME", "");
        agent
    }

    pub fn databases(&self) -> [PathBuf; 2] {
        [".pki/nssdb", ".mozilla/firefox/abc.default"].map(|place| self.home.join(place))
    }

    /// A further profile of the user's Firefox.
    pub fn profile(&self, name: &str, password: &str) -> PathBuf {
        self.database(&self.home.join(".mozilla/firefox").join(name), password)
    }

    fn database(&self, place: &Path, password: &str) -> PathBuf {
        let file = self.folder.path().join("password");
        fs::write(&file, format!("{password}\n")).expect("a file");
        fs::create_dir_all(place).expect("a folder");
        let _ = match password {
            "" => self.certutil(&["-N", "--empty-password"], place).ok(),
            _ => self
                .certutil(&["-N", "-f", &file.to_string_lossy()], place)
                .ok(),
        };
        let home = self.home.to_string_lossy();
        let _ = self
            .host
            .run(&["chown", "-R", &format!("{USER}:{USER}"), &home])
            .ok();
        place.to_owned()
    }

    pub fn certutil(&self, arguments: &[&str], folder: &Path) -> Finished {
        let database = format!("sql:{}", folder.display());
        let words = [&["certutil", "-d", &database], arguments].concat();
        self.host.run(&words)
    }

    /// Runs a command of an agent as the user.
    pub fn as_user(&self, agent: &Agent, arguments: &[&str]) -> Finished {
        let home = format!("HOME={}", self.home.display());
        let program = self.folder.path().join("agent");
        let (program, dir) = (program.to_string_lossy(), agent.dir.to_string_lossy());
        let (uid, gid) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        let words = [
            "setpriv",
            &uid,
            &gid,
            "--clear-groups",
            "env",
            &home,
            "JAVA_HOME=",
        ];
        let words = [&words[..], &[&*program, "--dir", &dir], arguments].concat();
        self.host.run(&words)
    }

    pub fn status(&self, agent: &Agent) -> Vec<Value> {
        let status = agent.json(&["ca", "trust", "status"]);
        let rows = status["stores"].as_array().expect("a list").clone();
        assert_eq!(kinds(&status), self.stores, "{status}");
        rows
    }

    /// All certificates of the bundle in any order, and all files beside it.
    pub fn bundle(&self) -> Vec<String> {
        let text = self.host.run(&["cat", BUNDLE]).ok();
        let files = self.host.run(&["ls", "/etc/ssl/certs"]).ok();
        let all = text.split("-----BEGIN").chain(files.lines());
        let mut all: Vec<_> = all.map(str::to_owned).collect();
        all.sort();
        all
    }

    pub fn accepted(&self, site: &Site) {
        for finished in self.clients(site) {
            let _ = finished.ok();
        }
    }

    pub fn refused(&self, site: &Site) {
        for finished in self.clients(site) {
            assert_ne!(finished.code, 0, "{finished}");
        }
    }

    /// Clients that know nothing but this machine's stores.
    fn clients(&self, site: &Site) -> Vec<Finished> {
        let run = |words: &[&str]| self.host.run(words);
        let url = format!("https://{}:{}/", site.name, site.port);
        let resolve = format!("{}:{}:127.0.0.1", site.name, site.port);
        let mut all = vec![
            run(&[
                "curl",
                "-sS",
                "--max-time",
                "10",
                "--resolve",
                &resolve,
                &url,
            ]),
            run(&["openssl", "verify", "-untrusted", &site.issuer, &site.leaf]),
        ];
        for folder in self.databases() {
            let database = format!("sql:{}", folder.display());
            // -u 1: as a TLS server's.
            let chain = ["-a", &site.leaf, "-a", &site.issuer];
            all.push(run(&[
                &["vfychain", "-d", &database, "-u", "1"],
                &chain[..],
            ]
            .concat()));
        }
        all
    }
}

/// A web server with a certificate of the mesh.
pub struct Site {
    name: String,
    port: &'static str,
    leaf: String,
    issuer: String,
    _server: Process,
}

impl Site {
    pub fn new(agent: &Agent) -> Self {
        let name = format!("{}.{DOMAIN}", agent.name);
        let out = agent.host.directory.join(format!("{}-certs", agent.name));
        let out = out.to_string_lossy();
        let issued = agent.json(&["cert", "issue", &name, "--out", &out]);
        let file = |field: &str| issued[field].as_str().expect("a file").to_owned();
        let port = if agent.name == "new" { "8444" } else { "8443" };
        let (leaf, key, chain) = (file("cert"), file("key"), file("chain"));
        let words = [
            "openssl", "s_server", "-accept", port, "-www", "-cert", &leaf,
        ];
        let words = [&words[..], &["-key", &key, "-cert_chain", &chain]].concat();
        let server = agent.host.start(&format!("https-{port}"), &words, &[]);
        let url = format!("https://127.0.0.1:{port}/");
        wait_for("the server", PATIENCE, || {
            agent
                .host
                .run(&["curl", "-sSk", "--max-time", "10", &url])
                .result()
        });
        // Of the chain's file the issuer alone: the root is for the stores.
        let text = fs::read_to_string(&chain).expect("the chain");
        let (issuer, _) = text.split_once("-----END CERTIFICATE-----\n").expect("two");
        let file = format!("{out}/issuer.pem");
        fs::write(&file, format!("{issuer}-----END CERTIFICATE-----\n")).expect("a file");
        Self {
            name,
            port,
            leaf,
            issuer: file,
            _server: server,
        }
    }
}
