//! A host as somebody has it who runs a web server beside the agent: its names
//! come from the agent, it trusts the mesh's root, and it has copies of its
//! own of the folders that servers are set up in, gone with the laboratory.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    Agent, Finished, Host, Process,
    agent::{self, DOMAIN, PATIENCE},
    wait::{ensure, wait_for},
};

/// Where the root lies for programs that are told a file.
pub const ROOT: &str = "/etc/innermesh/root.pem";
/// Where lego keeps its files.
pub const LEGO: &str = "/var/lib/lego";
/// What ops/examples calls the mesh's domain.
pub const EXAMPLE_DOMAIN: &str = "in.example.org";

/// The URL at which ACME clients begin.
#[must_use]
pub fn directory() -> String {
    format!("https://acme.{DOMAIN}:7443/directory")
}

/// The host of a running agent, set up for servers.
#[derive(Debug)]
pub struct Web<'lab> {
    pub host: &'lab Host,
    state: PathBuf,
}

impl<'lab> Web<'lab> {
    /// Sets it up, and waits until the agent serves ACME.
    ///
    /// # Panics
    /// When that can't be done.
    #[must_use]
    pub fn new(agent: &Agent<'lab>) -> Self {
        let web = Self {
            host: agent.host,
            state: agent.dir.clone(),
        };
        web.shell(
            r#"for folder in /etc /srv /usr/local/share /var/lib /var/log /var/www; do
                   [ -d "$folder" ] || continue
                   mkdir -p "/run/own$folder/upper" "/run/own$folder/work"
                   mount -t overlay overlay "$folder" \
                       -o "lowerdir=$folder,upperdir=/run/own$folder/upper,workdir=/run/own$folder/work"
               done
               mount --bind "$1" "$(readlink -m /etc/resolv.conf)""#,
            &[&web.host.directory.join("resolv.conf").to_string_lossy()],
        );
        web.host.use_resolver(agent.dns().ip());
        let root = agent.cli(&["ca", "root"]).ok();
        web.put(ROOT, &root);
        web.put("/usr/local/share/ca-certificates/innermesh.crt", &root);
        let _ = web.host.run(&["update-ca-certificates"]).ok();
        web.wait_acme();
        web
    }

    /// Waits until this host's agent serves ACME, with a certificate.
    pub fn wait_acme(&self) {
        wait_for("ACME", PATIENCE, || self.curl(&[&directory()]).result());
    }

    /// Writes a file, readable by all.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn put(&self, path: &str, text: &str) {
        let from = self.host.directory.join("put");
        fs::write(&from, text).expect("a file of the laboratory");
        let words = ["install", "-D", "-m", "644", &from.to_string_lossy(), path];
        let _ = self.host.run(&words).ok();
    }

    /// Writes a file of `ops/examples` to its place, with the domain of the
    /// tests instead of the example's.
    ///
    /// # Panics
    /// When there is no such example.
    pub fn put_example(&self, example: &str, path: &str) {
        self.put(path, &self::example(example));
    }

    /// What a file says.
    ///
    /// # Panics
    /// When it can't be read.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        self.host.run(&["cat", path]).ok()
    }

    /// Runs a shell script that has to succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn shell(&self, script: &str, arguments: &[&str]) -> String {
        let words = [&["sh", "-euc", script, "sh"], arguments].concat();
        self.host.run(&words).ok()
    }

    /// Runs certbot with the mesh's CA, without questions.
    pub fn certbot(&self, arguments: &[&str]) -> Finished {
        let url = directory();
        let always = ["certbot", "--non-interactive", "--server", &url];
        self.run(&[&always, arguments].concat())
    }

    /// Runs lego with the mesh's CA; its files lie in [`LEGO`].
    pub fn lego(&self, arguments: &[&str]) -> Finished {
        self.lego_with(&[], arguments)
    }

    /// As [`Web::lego`], with words in front of it.
    pub fn lego_with(&self, before: &[&str], arguments: &[&str]) -> Finished {
        let url = directory();
        let always = ["lego", "--accept-tos", "--server", &url, "--path", LEGO];
        let mail = ["--email", "admin@lab.internal"];
        self.run(&[before, always.as_slice(), &mail, arguments].concat())
    }

    /// Runs a command that finds `agent` as programs on its machine do.
    pub fn run(&self, words: &[&str]) -> Finished {
        let (path, state) = self.environment();
        self.host
            .run_with(words, &[("PATH", &path), ("INNERMESH_DIR", &state)])
    }

    /// As [`Web::run`], without waiting for its end.
    #[must_use]
    pub fn start(&self, name: &str, words: &[&str], environment: &[(&str, &str)]) -> Process {
        let (path, state) = self.environment();
        let own = [("PATH", path.as_str()), ("INNERMESH_DIR", &state)];
        self.host.start(name, words, &[&own, environment].concat())
    }

    fn environment(&self) -> (String, String) {
        let folder = agent::program().parent().expect("a folder");
        let path = env::var("PATH").unwrap_or_default();
        (
            format!("{}:{path}:/usr/sbin:/sbin", folder.display()),
            self.state.to_string_lossy().into_owned(),
        )
    }

    /// The serial number in a file, as `agent cert list` writes it.
    ///
    /// # Panics
    /// When there is no certificate.
    #[must_use]
    pub fn serial_in(&self, path: &str) -> String {
        let words = ["openssl", "x509", "-noout", "-serial", "-in", path];
        serial_number(&self.host.run(&words).ok())
    }

    /// Starts what a site of ops/examples stands in front of: a server of files
    /// on port 8080 that answers with `text`.
    #[must_use]
    pub fn serve(&self, text: &str) -> Process {
        self.put("/srv/site/index.html", text);
        let words = [
            "python3",
            "-m",
            "http.server",
            "8080",
            "--bind",
            "127.0.0.1",
        ];
        let words = [&words, ["--directory", "/srv/site"].as_slice()].concat();
        let process = self.host.start("backend", &words, &[]);
        wait_for("the backend", PATIENCE, || {
            self.curl(&["http://127.0.0.1:8080/"]).result()
        });
        process
    }

    /// Waits until a page answers with `text`, redirects followed; HTTPS as
    /// this host trusts it.
    pub fn wait_page(&self, url: &str, text: &str) {
        wait_for(url, PATIENCE, || {
            let page = self.curl(&["--location", url]).result()?;
            ensure(page == text, page)
        });
    }

    /// Runs curl, which fails at an HTTP error and trusts what the host does.
    pub fn curl(&self, arguments: &[&str]) -> Finished {
        let words = ["curl", "--silent", "--show-error", "--fail"];
        let words = [&words, ["--max-time", "20"].as_slice(), arguments].concat();
        self.host.run(&words)
    }

    /// The serial number of the certificate that is shown for a name, as
    /// `agent cert list` writes it; TLS to its port `port`, checked.
    ///
    /// # Errors
    /// Why there is none, or none to be trusted.
    pub fn serial(&self, name: &str, port: u16) -> Result<String, String> {
        let told = self.host.run(&[
            "sh",
            "-euc",
            r#"openssl s_client -connect "$1:$2" -servername "$1" -verify_hostname "$1" \
                   -CAfile "$3" -verify_return_error </dev/null 2>/dev/null |
               openssl x509 -noout -serial"#,
            "sh",
            name,
            &port.to_string(),
            ROOT,
        ]);
        let told = told.result()?;
        if told.starts_with("serial=") {
            Ok(serial_number(&told))
        } else {
            Err("no certificate to be trusted".into())
        }
    }
}

fn serial_number(told: &str) -> String {
    let serial = told.trim().trim_start_matches("serial=");
    format!("{:0>32}", serial.to_ascii_lowercase())
}

/// A file of `ops/examples`, with the domain of the tests.
///
/// # Panics
/// When there is no such example.
#[must_use]
pub fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/examples");
    let path = folder.join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.replace(EXAMPLE_DOMAIN, DOMAIN)
}

/// Adds a service to an agent, and waits until its name is granted and
/// answered.
pub fn add_service(agent: &Agent, name: &str, port: u16) {
    let _ = agent
        .cli(&["service", "add", name, "--port", &port.to_string()])
        .ok();
    let full = format!("{name}.{DOMAIN}");
    let own = agent.overlay_ipv4(&agent.name);
    agent.wait_answer(&[&full, "A"], &[&own]);
}

/// The serial numbers of the certificates in force for exactly one name, as
/// an agent's ledger has them, and whether each is revoked.
#[must_use]
pub fn issued(agent: &Agent, name: &str) -> Vec<(String, bool)> {
    let rows = agent.json(&["cert", "list"]);
    let rows = rows.as_array().into_iter().flatten();
    let full = Value::from(format!("{name}.{DOMAIN}"));
    rows.filter(|row| row["names"].as_array().is_some_and(|n| n.contains(&full)))
        .map(|row| {
            let serial = row["serial"].as_str().unwrap_or_default();
            (serial.to_owned(), row["revoked"] == true)
        })
        .collect()
}

/// Waits until an agent knows that a certificate is revoked.
pub fn wait_revoked(agent: &Agent, name: &str, serial: &str) {
    let what = format!("{} to know that {serial} is revoked", agent.name);
    wait_for(&what, PATIENCE, || {
        let rows = issued(agent, name);
        let found = rows
            .iter()
            .any(|(found, revoked)| found == serial && *revoked);
        ensure(found, format!("{rows:?}"))
    });
}
