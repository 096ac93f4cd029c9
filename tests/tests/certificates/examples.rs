//! The files of ops/examples, each run by the server that it is for, as they
//! stand there but for the domain. Caddy's is in acme_caddy.rs.

use std::path::Path;

use innermesh_tests::{
    Agent, Lab, Process,
    agent::{DOMAIN, PATIENCE},
    installed, skip,
    wait::ensure,
    wait_for,
    web::{ROOT, Web, add_service, directory, example},
};

const TEXT: &str = "the photos of beta\n";
/// Where the examples look for what `agent cert issue` writes.
const CERTS: &str = "/etc/innermesh/certs";

/// Two machines: beta serves, alpha visits. Both trust the mesh's root.
fn mesh<'lab>(lab: &'lab Lab, service: &str, port: u16) -> (Agents<'lab>, Web<'lab>, Web<'lab>) {
    let [alpha, beta] = lab.mesh();
    add_service(&beta, service, port);
    let (web, visitor) = (Web::new(&beta), Web::new(&alpha));
    (
        Agents {
            _alpha: alpha,
            beta,
        },
        web,
        visitor,
    )
}

struct Agents<'lab> {
    _alpha: Agent<'lab>,
    beta: Agent<'lab>,
}

impl Agents<'_> {
    fn issue(&self, name: &str, more: &[&str]) {
        let issue = ["cert", "issue", name, "--out", CERTS];
        let _ = self.beta.cli(&[&issue, more].concat()).ok();
    }

    fn renew(&self, name: &str) {
        let _ = self.beta.cli(&["cert", "renew", name]).ok();
    }
}

fn start_nginx(web: &Web<'_>) -> Process {
    let _ = web.run(&["nginx", "-t"]).ok();
    let nginx = web.start("nginx", &["nginx", "-g", "daemon off;"], &[]);
    wait_for("nginx", PATIENCE, || {
        web.curl(&["http://localhost/"]).result()
    });
    nginx
}

fn wait_other(visitor: &Web<'_>, old: &str) {
    wait_for("another certificate", PATIENCE, || {
        let serial = visitor.serial(&format!("photos.{DOMAIN}"), 443)?;
        ensure(serial != old, &serial)
    });
}

#[test]
fn nginx_with_the_files_of_cert_issue() {
    if !installed(&["nginx", "python3"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let (agents, web, visitor) = mesh(&lab, "photos", 443);
    let _backend = web.serve(TEXT);
    let _nginx = start_nginx(&web);
    agents.issue("photos", &["--exec", "nginx -s reload"]);
    web.put_example("nginx/photos.conf", "/etc/nginx/sites-enabled/photos.conf");
    let _ = web.run(&["nginx", "-s", "reload"]).ok();
    let url = format!("https://photos.{DOMAIN}/");
    visitor.wait_page(&url, TEXT);
    let old = visitor.serial(&format!("photos.{DOMAIN}"), 443);
    agents.renew("photos");
    wait_other(&visitor, &old.expect("a certificate"));
    visitor.wait_page(&url, TEXT);
}

#[test]
fn nginx_with_certbot_which_renews_and_reloads() {
    if !installed(&["nginx", "certbot", "python3"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let (_agents, web, visitor) = mesh(&lab, "photos", 443);
    let _backend = web.serve(TEXT);
    let name = format!("photos.{DOMAIN}");
    // Debian's own site answers first, and has the folder of the example.
    let _nginx = start_nginx(&web);
    web.put_example("nginx-certbot/cli.ini", "/etc/letsencrypt/mesh.ini");
    web.shell("cd /etc/letsencrypt; cat mesh.ini >>cli.ini", &[]);
    let hook = "/etc/letsencrypt/renewal-hooks/deploy/reload-nginx";
    web.put_example("nginx-certbot/reload-nginx", hook);
    let get = [
        "certbot",
        "certonly",
        "--webroot",
        "-w",
        "/var/www/html",
        "-d",
        &name,
    ];
    let _ = web
        .run(&[&get, ["--non-interactive"].as_slice()].concat())
        .ok();
    web.put_example(
        "nginx-certbot/photos.conf",
        "/etc/nginx/sites-enabled/photos.conf",
    );
    // From here on certbot runs the hook itself.
    let _ = web.run(&["chmod", "+x", hook]).ok();
    let _ = web.run(&[hook]).ok();
    let url = format!("https://{name}/");
    visitor.wait_page(&url, TEXT);
    visitor.wait_page(&format!("http://{name}/"), TEXT);

    let old = visitor.serial(&name, 443).expect("a certificate");
    let renew = [
        "certbot",
        "renew",
        "--force-renewal",
        "--no-random-sleep-on-renew",
    ];
    let _ = web.run(&renew).ok();
    wait_other(&visitor, &old);
    visitor.wait_page(&url, TEXT);
}

#[test]
fn haproxy_with_the_one_file_of_cert_issue() {
    if !installed(&["haproxy", "python3"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let (agents, web, visitor) = mesh(&lab, "photos", 443);
    let _backend = web.serve(TEXT);
    agents.issue("photos", &[]);
    let path = "/etc/haproxy/haproxy.cfg";
    web.put_example("haproxy/haproxy.cfg", path);
    let _ = web.run(&["haproxy", "-c", "-f", path]).ok();
    let haproxy = web.start("haproxy", &["haproxy", "-W", "-f", path], &[]);
    let url = format!("https://photos.{DOMAIN}/");
    visitor.wait_page(&url, TEXT);
    // As `systemctl reload haproxy` does.
    let reload = format!("kill -USR2 {}", haproxy.id());
    let shown = || {
        let serial = visitor.serial(&format!("photos.{DOMAIN}"), 443);
        serial.expect("a certificate")
    };
    let old = shown();
    agents.issue("photos", &["--exec", &reload]);
    wait_other(&visitor, &old);
    let old = shown();
    agents.renew("photos");
    wait_other(&visitor, &old);
}

#[test]
fn postgresql_with_a_key_of_its_own_user() {
    if !installed(&["pg_createcluster", "psql"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let (agents, web, visitor) = mesh(&lab, "db", 5432);
    let versions = web.shell("ls /usr/lib/postgresql", &[]);
    let version = versions.split_whitespace().next_back().expect("a version");
    agents.issue("db", &["--owner", "postgres:postgres"]);
    // A cluster as Debian makes it, whatever the machine itself has.
    web.shell(
        r#"rm -rf /etc/postgresql/* /var/lib/postgresql/*
           mkdir -p /run/postgresql && chown postgres:postgres /run/postgresql
           pg_createcluster "$1" main --port 5432"#,
        &[version],
    );
    let folder = format!("/etc/postgresql/{version}/main");
    web.put_example(
        "postgresql/innermesh.conf",
        &format!("{folder}/conf.d/innermesh.conf"),
    );
    web.shell(
        r#"echo 'hostssl all all all trust' >>"$1/pg_hba.conf""#,
        &[&folder],
    );
    let words = [
        "setpriv",
        "--reuid=postgres",
        "--regid=postgres",
        "--init-groups",
        &format!("/usr/lib/postgresql/{version}/bin/postgres"),
        "-D",
        &format!("/var/lib/postgresql/{version}/main"),
        "-c",
        &format!("config_file={folder}/postgresql.conf"),
    ];
    let _postgres = web.start("postgres", &words, &[]);
    // The client checks the chain and the name.
    let source = |host: &str| {
        format!("host={host} user=postgres dbname=postgres sslmode=verify-full sslrootcert={ROOT}")
    };
    let ask = |host: &str| {
        let question = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        visitor.run(&["psql", "-At", "-c", question, &source(host)])
    };
    wait_for("PostgreSQL", PATIENCE, || {
        let told = ask(&format!("db.{DOMAIN}")).result()?;
        ensure(told == "t\n", told)
    });
    let by_other = ask(&format!("beta.{DOMAIN}"));
    assert!(
        by_other.stderr.contains("does not match host name"),
        "{by_other}"
    );
}

#[test]
fn traefiks_files_are_yaml_and_name_the_mesh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/examples/traefik");
    let read = "import json, sys, yaml; json.dump([yaml.safe_load(open(f)) for f in sys.argv[1:]], sys.stdout)";
    let files = ["traefik.yaml", "dynamic.yaml"].map(|file| folder.join(file));
    let told = std::process::Command::new("python3")
        .args(["-c", read])
        .args(&files)
        .output();
    let told = match told {
        Ok(told) if String::from_utf8_lossy(&told.stderr).contains("No module named") => {
            skip("python3-yaml is not installed");
            return;
        }
        Ok(told) => told,
        Err(error) => {
            skip(format!("python3 can't be run: {error}"));
            return;
        }
    };
    assert!(told.status.success(), "{told:?}");
    let read: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let [fixed, dynamic] = [&read[0], &read[1]];
    let acme = &fixed["certificatesResolvers"]["mesh"]["acme"];
    assert_eq!(
        acme["caServer"],
        "https://acme.in.example.org:7443/directory"
    );
    let router = &dynamic["http"]["routers"]["photos"];
    assert_eq!(router["tls"]["certResolver"], "mesh");
    let service = router["service"].as_str().expect("a service");
    assert!(dynamic["http"]["services"][service].is_object());
    let entry = router["entryPoints"][0].as_str().expect("an entry point");
    assert!(fixed["entryPoints"][entry].is_object());
    assert!(example("traefik/traefik.yaml").contains(&directory()));
}
