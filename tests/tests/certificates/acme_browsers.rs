//! Browsers that have the mesh's root among theirs: a page of the mesh opens
//! without a warning, and whoever gets hold of a CA node's key makes nothing
//! that they believe outside the mesh's domain.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
};

use innermesh_tests::{
    Agent, Finished, Lab, Process,
    agent::{DOMAIN, PATIENCE},
    installed, wait_for,
    web::{ROOT, Web, add_service},
};
use serde_json::{Value, json};

const TEXT: &str = "the photos of beta\n";
/// Outside the mesh's domain.
const OUTSIDE: &str = "www.example.com";
const HOME: &str = "/run/visitor";
/// Firefox's port for a remote control, unless told otherwise.
const MARIONETTE: u16 = 2828;

/// Alpha visits what beta serves: photos, with a certificate of the mesh; and
/// a name inside the domain and one outside, with certificates that the key of
/// alpha's issuer signed past the ledger.
struct Scene<'lab> {
    visitor: Web<'lab>,
    _servers: [Process; 2],
    _agents: [Agent<'lab>; 2],
}

fn inside() -> String {
    format!("inside.beta.{DOMAIN}")
}

fn scene(lab: &Lab) -> Scene<'_> {
    let [alpha, beta] = lab.mesh();
    add_service(&beta, "photos", 443);
    let (web, visitor) = (Web::new(&beta), Web::new(&alpha));
    let certs = "/etc/innermesh/certs";
    let _ = beta.cli(&["cert", "issue", "photos", "--out", certs]).ok();
    web.put_example("nginx/photos.conf", "/etc/nginx/sites-enabled/photos.conf");
    let key = alpha.dir.join("state/issuer.key");
    for name in [inside().as_str(), OUTSIDE] {
        web.shell(
            r#"cd /etc/innermesh/certs
               sed '1,/END CERTIFICATE/d' photos.crt >issuer.crt
               # In front of a key lies its hash.
               tail -c +33 "$2" | openssl pkey -inform DER -out issuer.key
               printf 'subjectAltName=critical,DNS:%s\nextendedKeyUsage=serverAuth\n' "$1" >extensions
               openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                   -subj / -keyout "$1.key" -out "$1.csr"
               openssl x509 -req -in "$1.csr" -CA issuer.crt -CAkey issuer.key \
                   -days 30 -set_serial "0x$(openssl rand -hex 15)" -extfile extensions -out leaf.crt
               cat leaf.crt issuer.crt >"$1.crt""#,
            &[name, &key.to_string_lossy()],
        );
        let site = web.read("/etc/nginx/sites-enabled/photos.conf");
        let site = site.replace(
            &format!("server_name photos.{DOMAIN}"),
            &format!("server_name {name}"),
        );
        let site = site.replace("/photos.", &format!("/{name}."));
        web.put(&format!("/etc/nginx/sites-enabled/{name}.conf"), &site);
    }
    let _ = web.run(&["nginx", "-t"]).ok();
    let servers = [
        web.serve(TEXT),
        web.start("nginx", &["nginx", "-g", "daemon off;"], &[]),
    ];
    let hosts = format!("{} {OUTSIDE}\n", alpha.overlay_ipv4("beta"));
    visitor.shell(r#"printf %s "$1" >>/etc/hosts"#, &[&hosts]);
    visitor.wait_page(&page(&format!("photos.{DOMAIN}")), TEXT);
    Scene {
        visitor,
        _servers: servers,
        _agents: [alpha, beta],
    }
}

fn page(name: &str) -> String {
    format!("https://{name}/")
}

#[test]
fn chromium_opens_what_is_of_the_mesh_and_nothing_else() {
    if !installed(&["chromium", "certutil", "nginx", "python3"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let scene = scene(&lab);
    trust(&scene.visitor, &format!("{HOME}/.pki/nssdb"));
    let open = |name: &str| -> Finished {
        let profile = format!("--user-data-dir={HOME}/{name}");
        let url = page(name);
        let words = [
            "env",
            "HOME=/run/visitor",
            "chromium",
            "--headless",
            "--no-sandbox",
        ];
        let rest = ["--disable-gpu", "--disable-dev-shm-usage", &profile];
        let words = [&words, rest.as_slice(), &["--dump-dom", &url]].concat();
        scene.visitor.host.run(&words)
    };
    for name in [format!("photos.{DOMAIN}"), inside()] {
        let told = open(&name);
        assert!(told.stdout.contains(TEXT.trim()), "{told}");
    }
    let told = open(OUTSIDE);
    assert!(!told.stdout.contains(TEXT.trim()), "{told}");
    assert!(told.stderr.contains("ERR_CERT_INVALID"), "{told}");
}

#[test]
fn firefox_opens_what_is_of_the_mesh_and_nothing_else() {
    if !installed(&["firefox-esr", "certutil", "nginx", "python3"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let scene = scene(&lab);
    let profile = format!("{HOME}/profile");
    trust(&scene.visitor, &profile);
    let words = [
        "firefox-esr",
        "--headless",
        "--marionette",
        "--no-remote",
        "--profile",
        &profile,
    ];
    let firefox = scene.visitor.start("firefox", &words, &[("HOME", HOME)]);
    let address = (Ipv4Addr::LOCALHOST, MARIONETTE).into();
    let stream = wait_for("Firefox", PATIENCE, || scene.visitor.host.tcp_to(address));
    let mut remote = Remote::new(stream).expect("a greeting");
    let session = json!({ "capabilities": { "alwaysMatch": { "acceptInsecureCerts": false } } });
    let _ = remote
        .ask("WebDriver:NewSession", &session)
        .expect("a session");
    for name in [format!("photos.{DOMAIN}"), inside()] {
        let opened = remote.ask("WebDriver:Navigate", &json!({ "url": page(&name) }));
        opened.unwrap_or_else(|why| panic!("{name}: {why}"));
        let source = remote.ask("WebDriver:GetPageSource", &json!({}));
        let source = source.expect("a page").to_string();
        assert!(source.contains(TEXT.trim()), "{source}");
    }
    let refused = remote.ask("WebDriver:Navigate", &json!({ "url": page(OUTSIDE) }));
    let why = refused.expect_err("the page outside").to_string();
    assert!(why.contains("insecure certificate"), "{why}");
    drop(firefox);
}

/// Puts the mesh's root into a new NSS store, as one does for a browser.
fn trust(web: &Web<'_>, store: &str) {
    web.shell(
        r#"mkdir -p "$1"
           certutil -d "sql:$1" -N --empty-password
           certutil -d "sql:$1" -A -t C,, -n innermesh -i "$2""#,
        &[store, ROOT],
    );
}

/// Firefox's remote control: JSON behind its length and a colon.
struct Remote(TcpStream);

impl Remote {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut remote = Self(stream);
        remote.read()?;
        Ok(remote)
    }

    /// The result of a command; its error is Firefox's.
    fn ask(&mut self, command: &str, parameters: &Value) -> Result<Value, String> {
        let text = json!([0, 1, command, parameters]).to_string();
        write!(self.0, "{}:{text}", text.len()).map_err(|e| e.to_string())?;
        let answer = self.read().map_err(|e| e.to_string())?;
        match &answer[2] {
            Value::Null => Ok(answer[3].clone()),
            error => Err(error.to_string()),
        }
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut length = 0;
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            match byte[0] {
                b':' => break,
                digit => length = length * 10 + usize::from(digit - b'0'),
            }
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }
}
