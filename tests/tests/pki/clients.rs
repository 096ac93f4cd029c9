//! Clients that people use, at a server that shows the product's certificates.

use std::{fs, net::SocketAddr, path::Path};

use innermesh_agent::ca::pem;
use innermesh_tests::leave_out;

use crate::{
    authority::{Authority, Forgery},
    cases,
    profiles::{self, Kind},
    serve::{PAGE, serve},
    verifiers::{Chain, run},
};

/// Clients, and whether they say what they fetched.
const CLIENTS: [(&str, bool); 3] = [("curl", true), ("gnutls-cli", false), ("python3", true)];

const PYTHON: &str = r#"
import socket, ssl, sys
host, port, root = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
context.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection(("127.0.0.1", int(port)), 20) as plain:
    with context.wrap_socket(plain, server_hostname=host) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
        print(tls.makefile().read())
"#;

/// Whether the client fetches the page of the server at `address` as that of
/// `host`; `None` without the client. `root` is the file that it trusts.
fn fetches(client: (&str, bool), root: &Path, host: &str, address: SocketAddr) -> Option<bool> {
    let root = root.to_string_lossy();
    let (server, port) = (address.ip().to_string(), address.port().to_string());
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let done = match client.0 {
        "curl" => {
            let to = format!("::{server}:{port}");
            let url = if host.contains(':') {
                format!("https://[{host}]/")
            } else {
                format!("https://{host}/")
            };
            let quiet = ["-sS", "--max-time", "20", "--noproxy", "*"];
            let rest = ["--cacert", &root, "--connect-to", &to, &url];
            run("curl", &[&quiet[..], &rest].concat(), None)
        }
        "gnutls-cli" => {
            let root = format!("--x509cafile={root}");
            let host = format!("--verify-hostname={host}");
            // An address is never sent as a name.
            let sent = if is_address {
                "--disable-sni".to_owned()
            } else {
                host.replace("verify", "sni")
            };
            run(
                "gnutls-cli",
                &[&root, &host, &sent, "-p", &port, &server],
                None,
            )
        }
        python => run(python, &["-c", PYTHON, host, &port, &root], None),
    }?;
    Some(done.good && (!client.1 || done.text.contains(PAGE)))
}

#[test]
fn clients_fetch_a_page_by_each_name_of_a_certificate_and_by_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root.pem");
    let trust = |der: &[u8]| {
        fs::write(&root, pem::encode(pem::CERTIFICATE, der)).expect("a file");
    };
    let check = |host: &str, address: SocketAddr, expected: bool, what: &str| {
        for client in CLIENTS {
            match fetches(client, &root, host, address) {
                Some(got) => assert_eq!(got, expected, "{} of {host}: {what}", client.0),
                None => leave_out(format!("{} is not installed", client.0)),
            }
        }
    };
    for profile in profiles::all() {
        if profile.kind != Kind::Service {
            continue;
        }
        trust(&profile.root);
        serve(&profile.chain(), &profile.key, |address| {
            for host in profile.hosts.iter().take(4) {
                check(host, address, true, &profile.title);
            }
            check("other.lab.internal", address, false, &profile.title);
            check("10.77.3.5", address, false, &profile.title);
        });
    }

    let authority = Authority::new();
    trust(authority.root.der());
    for case in cases::all() {
        if !["outside", "inside, and outside", "wildcard outside"].contains(&case.title) {
            continue;
        }
        let forgery: Forgery = case.forgery(&authority);
        let forged = authority.forge(&forgery);
        let chain = Chain {
            leaf: &forged.leaf,
            between: vec![authority.issuer.der()],
            root: authority.root.der(),
        };
        serve(&chain, &forged.key, |address| {
            check(&case.target.text(&authority), address, false, case.title);
        });
    }
}
