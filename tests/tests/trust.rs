//! `agent ca trust` with the real stores of a Debian machine: its bundle, NSS
//! databases, Java's keystore. All of it happens on a host of the laboratory,
//! whose files lie over the machine's, so that nothing of that changes.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use innermesh_tests::{
    Agent, Finished, Host, Lab, Process,
    agent::{DOMAIN, PATIENCE, program},
    wait_for,
};
use serde_json::Value;
use tempfile::TempDir;

/// A user whom only the laboratory knows.
const USER: &str = "4711";
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const ANCHORS: &str = "/usr/local/share/ca-certificates";

#[test]
fn clients_without_options_accept_the_mesh_until_its_root_is_taken_out() {
    let Some(lab) = Lab::new(1) else { return };
    let Some(machine) = Machine::new(&lab, "alpha") else {
        return;
    };
    let mut alpha = machine.agent("alpha");
    let _ = alpha.init();
    alpha.set("SUDO_UID", USER);
    let site = Site::new(&alpha);
    let before = machine.bundle();
    machine.refused(&site);
    for row in machine.status(&alpha) {
        assert_eq!(
            (&row["state"], &row["writable"]),
            (&"absent".into(), &true.into()),
            "{row}"
        );
    }

    let told = alpha.json(&["ca", "trust", "install"]);
    assert_eq!(
        results(&told),
        vec!["installed"; machine.stores.len()],
        "{told}"
    );
    assert_eq!(kinds(&told), machine.stores, "{told}");
    machine.accepted(&site);
    // What was written in the user's home is the user's still.
    for file in ["cert9.db", "key4.db", "pkcs11.txt"] {
        for folder in machine.databases() {
            let owner = fs::metadata(folder.join(file)).expect("a database").uid();
            assert_eq!(owner.to_string(), USER, "{file}");
        }
    }
    let name = told["stores"][0]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let fingerprint = told["stores"][0]["fingerprint_sha256"]
        .as_str()
        .expect("one");
    assert_eq!(name, format!("innermesh-{DOMAIN}-{}", &fingerprint[..12]));
    let file = Path::new(ANCHORS).join(format!("{name}.crt"));
    let mode = machine
        .host
        .run(&["stat", "-c", "%a", &file.to_string_lossy()]);
    assert_eq!(mode.ok().trim(), "644");

    let again = alpha.json(&["ca", "trust", "install"]);
    assert_eq!(
        results(&again),
        vec!["already"; machine.stores.len()],
        "{again}"
    );
    for row in machine.status(&alpha) {
        assert_eq!(
            (&row["state"], &row["recorded"]),
            (&"installed".into(), &true.into()),
            "{row}"
        );
    }

    // Also while no agent runs.
    alpha.stop();
    let mut expected = machine.stores.clone();
    expected.reverse();
    let told = alpha.json(&["ca", "trust", "uninstall"]);
    assert_eq!(
        results(&told),
        vec!["removed"; machine.stores.len()],
        "{told}"
    );
    assert_eq!(kinds(&told), expected, "{told}");
    machine.refused(&site);
    assert!(
        machine.bundle() == before,
        "something is left in the bundle"
    );
    let told = alpha.cli(&["ca", "trust", "uninstall"]).ok();
    assert!(
        told.contains("Nothing that was installed from here is left"),
        "{told}"
    );
    for row in machine.status(&alpha) {
        assert_eq!(
            (&row["state"], &row["recorded"]),
            (&"absent".into(), &false.into()),
            "{row}"
        );
    }
}

#[test]
fn roots_of_two_meshes_of_one_domain_live_side_by_side_and_go_together() {
    let Some(lab) = Lab::new(1) else { return };
    let Some(machine) = Machine::new(&lab, "old") else {
        return;
    };
    let install = ["ca", "trust", "install"];
    let mut old = machine.agent("old");
    let _ = old.init();
    old.set("SUDO_UID", USER);
    let site = Site::new(&old);
    let _ = old.json(&install);
    old.stop();

    // The same folder, with a new mesh in it.
    let state = old.dir.join("state");
    let record = fs::read(state.join("trust.json")).expect("a record");
    fs::remove_dir_all(&state).expect("the state");
    let mut new = machine.agent("new");
    let _ = new.init();
    new.set("SUDO_UID", USER);
    fs::write(new.dir.join("state/trust.json"), record).expect("a record");
    for row in machine.status(&new) {
        assert_eq!(row["state"], "other", "{row}");
        let detail = row["detail"].as_str().expect("which");
        assert!(detail.contains("another root of lab.internal"), "{row}");
    }
    let told = new.json(&install);
    assert_eq!(
        results(&told),
        vec!["installed"; machine.stores.len()],
        "{told}"
    );
    machine.accepted(&site);
    machine.accepted(&Site::new(&new));
    let status = new.json(&["ca", "trust", "status"]);
    let others = status["others"].as_array().expect("a list");
    assert_eq!(others.len(), machine.stores.len(), "{status}");
    let told = new.json(&["ca", "trust", "uninstall"]);
    assert_eq!(
        results(&told),
        vec!["removed"; 2 * machine.stores.len()],
        "{told}"
    );
    machine.refused(&site);
}

#[test]
fn without_root_the_own_browsers_are_done_and_the_rest_is_left_to_sudo() {
    let Some(lab) = Lab::new(1) else { return };
    let Some(machine) = Machine::new(&lab, "alpha") else {
        return;
    };
    let mut alpha = machine.agent("alpha");
    let _ = alpha.init();
    let install = machine.as_user(&alpha, &["ca", "trust", "install", "--json"]);
    assert_eq!(install.code, 1, "{install}");
    let told: Value = serde_json::from_str(&install.stdout).expect("JSON");
    for row in told["stores"].as_array().expect("a list") {
        let own = ["chromium", "firefox"].contains(&row["kind"].as_str().expect("a kind"));
        let expected = if own { "installed" } else { "needs_root" };
        assert_eq!(row["result"], expected, "{row}");
    }
    let text = machine.as_user(&alpha, &["ca", "trust", "install"]);
    assert!(text.stdout.contains("already there  Chromium"), "{text}");
    let sudo = format!(
        "`sudo agent --dir {} ca trust install`",
        alpha.dir.display()
    );
    assert!(text.stderr.contains(&sudo), "{text}");
    for folder in machine.databases() {
        let _ = machine
            .certutil(&["-V", "-u", "L", "-n", &name(&told)], &folder)
            .ok();
    }

    // Root undoes what root did, and says whose the rest is.
    alpha.set("SUDO_UID", USER);
    let other = alpha.cli(&["ca", "trust", "uninstall"]);
    assert_eq!(other.code, 1, "{other}");
    assert!(
        other.stderr.contains("installed without sudo is undone by"),
        "{other}"
    );
    let undone = machine.as_user(&alpha, &["ca", "trust", "uninstall", "--json"]);
    let undone = undone.json();
    assert_eq!(
        results(&undone),
        vec!["removed"; machine.databases().len()],
        "{undone}"
    );
    let _ = alpha.cli(&["ca", "trust", "uninstall"]).ok();
}

#[test]
fn a_store_that_can_not_be_changed_is_told_and_stops_no_other() {
    let Some(lab) = Lab::new(1) else { return };
    let Some(machine) = Machine::new(&lab, "alpha") else {
        return;
    };
    let mut alpha = machine.agent("alpha");
    let _ = alpha.init();
    alpha.set("SUDO_UID", USER);
    // A profile with a password, one that is damaged, and one that went away.
    let locked = machine.profile("locked", "password");
    let damaged = machine.profile("damaged", "");
    fs::write(damaged.join("cert9.db"), "not a database").expect("a file");
    let gone = machine.profile("gone", "");
    let install = alpha.cli(&["ca", "trust", "install", "--json"]);
    assert_eq!(install.code, 1, "{install}");
    let told: Value = serde_json::from_str(&install.stdout).expect("JSON");
    for row in told["stores"].as_array().expect("a list") {
        let place = Path::new(row["place"].as_str().expect("a place"));
        let failed = [&locked, &damaged].contains(&&place.to_owned());
        let expected = if failed { "failed" } else { "installed" };
        assert_eq!(row["result"], expected, "{row}");
        let detail = row["detail"].as_str().unwrap_or_default();
        let says = match place == locked {
            true => "it has a password",
            false => "certutil failed",
        };
        assert_eq!(detail.contains(says), failed, "{row}");
    }
    // Nor does anything wait for a password on a terminal.
    let dir = alpha.dir.display();
    let words = format!(
        "SUDO_UID={USER} JAVA_HOME= {} --dir {dir} ca trust install",
        program().display()
    );
    let shown = machine.host.run(&["script", "-qec", &words, "/dev/null"]);
    assert_eq!(shown.code, 1, "{shown}");
    assert!(shown.stdout.contains("it has a password"), "{shown}");
    let list = machine.certutil(&["-L"], &locked).ok();
    assert!(!list.contains("innermesh"), "{list}");

    fs::remove_dir_all(&gone).expect("a profile");
    let told = alpha.json(&["ca", "trust", "uninstall"]);
    for row in told["stores"].as_array().expect("a list") {
        let expected = match Path::new(row["place"].as_str().expect("a place")) == gone {
            true => "absent",
            false => "removed",
        };
        assert_eq!(row["result"], expected, "{row}");
    }
}

/// A host with stores of its own.
struct Machine<'lab> {
    host: &'lab Host,
    home: PathBuf,
    folder: TempDir,
    /// The kinds of its stores, as they are told.
    stores: Vec<&'static str>,
}

impl<'lab> Machine<'lab> {
    /// `None`, said aloud, where this machine lacks what it takes.
    fn new(lab: &'lab Lab, name: &str) -> Option<Self> {
        let host = &lab.hosts[0];
        let has = |program: &str| host.run(&["which", program]).code == 0;
        for tool in ["update-ca-certificates", "certutil", "vfychain"] {
            if !has(tool) || !Path::new("/etc/ca-certificates/update.d").is_dir() {
                skipped(&format!("{tool} isn't installed as Debian has it"));
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
        match has("keytool") {
            true => stores.push("java"),
            false => skipped(&format!("{name}: Java's keystore: there is no keytool")),
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

    fn agent(&self, name: &str) -> Agent<'lab> {
        let mut agent = Agent::new(self.host, name);
        fs::set_permissions(&agent.dir, fs::Permissions::from_mode(0o755)).expect("a folder");
        // Not this machine's, whatever the test was started with.
        agent.set("JAVA_HOME", "");
        agent
    }

    fn databases(&self) -> [PathBuf; 2] {
        [".pki/nssdb", ".mozilla/firefox/abc.default"].map(|place| self.home.join(place))
    }

    /// A further profile of the user's Firefox.
    fn profile(&self, name: &str, password: &str) -> PathBuf {
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

    fn certutil(&self, arguments: &[&str], folder: &Path) -> Finished {
        let database = format!("sql:{}", folder.display());
        let words = [&["certutil", "-d", &database], arguments].concat();
        self.host.run(&words)
    }

    /// Runs a command of an agent as the user.
    fn as_user(&self, agent: &Agent, arguments: &[&str]) -> Finished {
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

    fn status(&self, agent: &Agent) -> Vec<Value> {
        let status = agent.json(&["ca", "trust", "status"]);
        let rows = status["stores"].as_array().expect("a list").clone();
        assert_eq!(kinds(&status), self.stores, "{status}");
        rows
    }

    /// All certificates of the bundle in any order, and all files beside it.
    fn bundle(&self) -> Vec<String> {
        let text = self.host.run(&["cat", BUNDLE]).ok();
        let files = self.host.run(&["ls", "/etc/ssl/certs"]).ok();
        let all = text.split("-----BEGIN").chain(files.lines());
        let mut all: Vec<_> = all.map(str::to_owned).collect();
        all.sort();
        all
    }

    fn accepted(&self, site: &Site) {
        for finished in self.clients(site) {
            let _ = finished.ok();
        }
    }

    fn refused(&self, site: &Site) {
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
struct Site {
    name: String,
    port: &'static str,
    leaf: String,
    issuer: String,
    _server: Process,
}

impl Site {
    fn new(agent: &Agent) -> Self {
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

fn rows<'a>(told: &'a Value, field: &str) -> Vec<&'a str> {
    let rows = told["stores"].as_array().expect("a list");
    let rows = rows.iter().map(|row| row[field].as_str().expect("text"));
    rows.collect()
}

fn results(told: &Value) -> Vec<&str> {
    rows(told, "result")
}

fn kinds(told: &Value) -> Vec<&str> {
    rows(told, "kind")
}

fn name(told: &Value) -> String {
    rows(told, "name")[0].to_owned()
}

fn skipped(why: &str) {
    // Not eprintln!, which the test harness would swallow.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
