//! Certificates as servers use them: nginx, HAProxy and PostgreSQL with the
//! files that `cert issue` writes, renewed and told of it while they run.

use std::{fs, os::unix::fs::PermissionsExt};

use innermesh_tests::{
    Agent, Host, Lab,
    agent::{PATIENCE, program},
    installed, skip,
    wait::ensure,
    wait_for,
};
use serde_json::Value;

const NAME: &str = "alpha.lab.internal";

/// The serial number of the certificate that a TLS server shows.
fn shown(host: &Host, port: u16, ca: &str) -> Result<String, String> {
    let line = format!(
        "openssl s_client -connect 127.0.0.1:{port} -servername {NAME} -CAfile {ca} \
         -verify_return_error </dev/null 2>/dev/null | openssl x509 -noout -serial"
    );
    let finished = host.run(&["sh", "-c", &line]);
    let text = finished.result()?;
    let serial = text.trim().strip_prefix("serial=").ok_or(text.clone())?;
    Ok(serial.to_lowercase())
}

fn text<'a>(told: &'a Value, field: &str) -> &'a str {
    let found = told[field].as_str();
    found.unwrap_or_else(|| panic!("no {field}: {told}"))
}

fn renewal(agent: &Agent) -> Value {
    let told = agent.json(&["cert", "list"]);
    let rows = told.as_array().into_iter().flatten();
    let mut renewals = rows.map(|row| row["renewal"].clone());
    let found = renewals.find(|renewal| !renewal.is_null());
    found.unwrap_or_else(|| panic!("nothing is renewed: {told}"))
}

#[test]
fn nginx_serves_the_certificate_and_is_reloaded_when_it_is_renewed() {
    if !installed(&["nginx", "openssl"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let [mut alpha] = lab.mesh();
    let host = alpha.host;
    let folder = host.directory.join("nginx");
    fs::create_dir(&folder).expect("a folder");
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let certs = at("certs");

    // Before it runs, the command fails, and that is told.
    let reload = format!("kill -HUP $(cat {})", at("pid"));
    let issue = ["cert", "issue", "alpha", "--out", &certs, "--exec", &reload];
    let first = alpha.cli(&issue);
    assert_eq!(first.code, 1, "{first}");
    assert!(first.stderr.contains("is run again"), "{first}");
    assert!(first.stdout.contains("renewed"), "{first}");
    let status = alpha.status();
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("command after it failed"), "{warnings}");

    let config = format!(
        "daemon off; worker_processes 1; pid {pid}; error_log {log};
         events {{}}
         http {{
           access_log off;
           client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp};
           uwsgi_temp_path {tmp}; scgi_temp_path {tmp};
           server {{
             listen 127.0.0.1:8443 ssl;
             ssl_certificate {certs}/alpha.crt;
             ssl_certificate_key {certs}/alpha.key;
           }}
         }}",
        pid = at("pid"),
        log = at("error.log"),
        tmp = at("tmp"),
    );
    fs::write(at("nginx.conf"), config).expect("a file");
    let mut nginx = host.start("nginx", &["nginx", "-c", &at("nginx.conf")], &[]);
    let ca = format!("{certs}/ca.crt");
    let serial = text(&renewal(&alpha), "serial").to_owned();
    wait_for("nginx to serve it", PATIENCE, || {
        let shown = shown(host, 8443, &ca)?;
        ensure(shown == serial, &shown)
    });
    // The command is run again by itself, and now it goes well.
    wait_for("the command to succeed", PATIENCE, || {
        let row = renewal(&alpha);
        ensure(row["exec_pending"] == false, &row)
    });

    let told = alpha.json(&["cert", "renew", "alpha"]);
    let renewed = text(&told, "serial").to_owned();
    assert_ne!(renewed, serial);
    wait_for("nginx to serve the new one", PATIENCE, || {
        let shown = shown(host, 8443, &ca)?;
        ensure(shown == renewed, &shown)
    });
    assert!(nginx.ended().is_none(), "it was reloaded, not restarted");

    // The agent started anew knows all of it; with another key it fits as well.
    alpha.stop();
    alpha.start();
    let told = alpha.json(&["cert", "renew", NAME, "--new-key", "--out", &certs]);
    let renewed = text(&told, "serial").to_owned();
    wait_for("nginx to serve the one with a new key", PATIENCE, || {
        let shown = shown(host, 8443, &ca)?;
        ensure(shown == renewed, &shown)
    });
    assert_eq!(alpha.status()["warnings"], Value::Array(Vec::new()));
    let _ = alpha.cli(&["cert", "rm", "alpha"]).ok();
    alpha.refused(&["cert", "renew", "alpha"], "renews no certificate alpha");
    assert!(fs::exists(format!("{certs}/alpha.key")).expect("a folder"));
}

#[test]
fn haproxy_takes_the_one_file() {
    if !installed(&["haproxy", "openssl"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let host = alpha.host;
    let told = alpha.json(&["cert", "issue", "alpha", "--also", "www.alpha"]);
    assert_eq!(
        told["names"],
        serde_json::json!([NAME, format!("www.{NAME}")])
    );
    let pem = text(&told, "pem");
    let mode = fs::metadata(pem).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let config = host.directory.join("haproxy.cfg");
    let text_of = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
         frontend f\n  bind 127.0.0.1:8443 ssl crt {pem}\n  http-request return status 200\n"
    );
    fs::write(&config, text_of).expect("a file");
    let config = config.to_string_lossy();
    let _haproxy = host.start("haproxy", &["haproxy", "-db", "-f", &config], &[]);
    let serial = text(&told, "serial").to_owned();
    wait_for("HAProxy to serve it", PATIENCE, || {
        let shown = shown(host, 8443, text(&told, "ca"))?;
        ensure(shown == serial, &shown)
    });
}

#[test]
fn postgresql_takes_the_key_as_its_user_s_and_as_its_group_s() {
    if !installed(&["postgres", "openssl", "setpriv"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let host = alpha.host;
    let open = fs::Permissions::from_mode(0o755);
    for folder in [
        host.directory.as_path(),
        host.directory.parent().expect("the laboratory"),
    ] {
        fs::set_permissions(folder, open.clone()).expect("it is ours");
    }
    let id = |flag: &str| host.run(&["id", flag, "postgres"]).result();
    let (Ok(uid), Ok(gid)) = (id("-u"), id("-g")) else {
        skip("there is no user postgres");
        return;
    };
    let bin = fs::canonicalize("/usr/local/bin/postgres")
        .or_else(|_| fs::canonicalize("/usr/bin/postgres"));
    let bin = bin.expect("it is there");
    let bin = bin
        .parent()
        .expect("a folder")
        .to_string_lossy()
        .into_owned();
    let as_postgres = format!(
        "setpriv --reuid {} --regid {} --clear-groups",
        uid.trim(),
        gid.trim()
    );
    for (port, option, mode) in [
        (5433, ["--owner", "postgres:postgres"], 0o600),
        (5434, ["--group", "postgres"], 0o640),
    ] {
        let folder = host.directory.join(format!("pg{port}"));
        fs::create_dir(&folder).expect("a folder");
        let folder = folder.to_string_lossy().into_owned();
        let certs = format!("{folder}/certs");
        let issue = ["cert", "issue", "alpha", "--out", &certs];
        let told = alpha.json(&[&issue[..], &option].concat());
        let key = text(&told, "key");
        let now = fs::metadata(key).expect("a key").permissions().mode();
        assert_eq!(now & 0o777, mode);
        let script = format!(
            "set -e
             mkdir {folder}/data && chown postgres:postgres {folder}/data
             {as_postgres} {bin}/initdb -D {folder}/data -A trust >/dev/null
             exec {as_postgres} {bin}/postgres -D {folder}/data -p {port} -k {folder}/data \
               -c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file={certs}/alpha.crt \
               -c ssl_key_file={certs}/alpha.key"
        );
        let _postgres = host.start(&format!("postgres{port}"), &["sh", "-c", &script], &[]);
        let serial = text(&told, "serial").to_owned();
        let line = format!(
            "openssl s_client -starttls postgres -connect 127.0.0.1:{port} </dev/null 2>/dev/null \
             | openssl x509 -noout -serial"
        );
        wait_for("PostgreSQL to show it", PATIENCE, || {
            let shown = host.run(&["sh", "-c", &line]).result()?.to_lowercase();
            ensure(shown.contains(&serial), &shown)
        });
        // Renewed by the agent, it belongs to whom it did.
        let _ = alpha.json(&["cert", "renew", "alpha", "--out", &certs]);
        let now = fs::metadata(key).expect("a key").permissions().mode();
        assert_eq!(now & 0o777, mode);
    }
}

#[test]
fn what_cannot_be_renewed_is_told_and_left_alone() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let told = alpha.json(&["cert", "issue", "alpha"]);
    let key = text(&told, "key").to_owned();

    // A file of somebody's in the place of the key.
    fs::remove_file(&key).expect("a link");
    fs::write(&key, "mine").expect("a file");
    alpha.refused(&["cert", "renew", "alpha"], "left alone");
    alpha.refused(&["cert", "issue", "alpha"], "made by somebody else");
    assert_eq!(fs::read_to_string(&key).expect("a file"), "mine");
    let finished = alpha.cli(&["status"]);
    assert_eq!(finished.code, 0);
    assert!(finished.stderr.contains("left alone"), "{finished}");
    fs::remove_file(&key).expect("a file");

    // A new one in its place, and that is revoked.
    fs::remove_file(text(&told, "cert")).expect("a link");
    let serial = text(&alpha.json(&["cert", "issue", "alpha"]), "serial").to_owned();
    let revoke = alpha.cli(&["cert", "revoke", &serial]).ok();
    assert!(
        revoke.contains("agent cert renew alpha --new-key"),
        "{revoke}"
    );
    alpha.refused(&["cert", "renew", "alpha"], "was revoked");
    let told = alpha.json(&["cert", "renew", "alpha", "--new-key"]);
    assert_ne!(text(&told, "serial"), serial);

    // Once only.
    let once = alpha.cli(&["cert", "issue", "alpha", "--no-renew"]);
    assert_eq!(once.code, 0, "{once}");
    assert!(
        once.stderr.contains("is no longer renewed automatically"),
        "{once}"
    );
    alpha.refused(&["cert", "rm", "alpha"], "renews no certificate");
    for wrong in [
        vec!["cert", "issue", "alpha", "--mode", "644"],
        vec!["cert", "issue", "alpha", "--owner", "no-such-user"],
        vec!["cert", "issue", "alpha", "--renew-before", "90d"],
        vec!["cert", "issue", "alpha", "--no-renew", "--exec", "true"],
    ] {
        let finished = alpha.cli(&wrong);
        assert_eq!(finished.code, 2, "{finished}");
    }
}

#[test]
fn a_folder_that_the_agent_does_not_see_is_refused_before_anything_is_issued() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let issued = || alpha.json(&["cert", "list"]).as_array().map_or(0, Vec::len);
    let before = issued();
    // Another file system there for whoever asks, as systemd has it for the agent
    // (PrivateTmp=): with the folder made for this, and with one that is there.
    let hidden = alpha.host.directory.join("hidden");
    fs::create_dir(&hidden).expect("a folder");
    let hidden = hidden.to_string_lossy().into_owned();
    let dir = alpha.dir.to_string_lossy().into_owned();
    let issue = |out: &str, more: &[&str]| {
        let script = "mount -t tmpfs none \"$0\" && exec \"$@\"";
        let agent = program().to_string_lossy();
        let words = ["unshare", "--mount", "sh", "-c", script, &hidden, &agent];
        let issue = ["--dir", &dir, "cert", "issue", "alpha", "--out", out];
        alpha.host.run(&[&words[..], &issue, more].concat())
    };
    for out in [format!("{hidden}/new/certs"), hidden.clone()] {
        let finished = issue(&out, &[]);
        assert_eq!(finished.code, 1, "{finished}");
        for part in [
            "doesn't see the folder",
            "PrivateTmp=",
            "Nothing was issued",
        ] {
            assert!(finished.stderr.contains(part), "{part}: {finished}");
        }
    }
    assert_eq!(issued(), before);
    assert_eq!(alpha.status()["warnings"], Value::Array(Vec::new()));
    // Once, without the agent, it goes.
    let once = issue(&hidden, &["--no-renew"]);
    assert_eq!(once.code, 0, "{once}");
}

#[test]
fn a_second_issue_keeps_the_command_and_the_owner_that_it_says_nothing_of() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let issue = ["cert", "issue", "alpha"];
    let more = ["--exec", "true", "--owner", "0:12345", "--mode", "640"];
    let _ = alpha.json(&[&issue[..], &more].concat());
    let told = alpha.cli(&issue).ok();
    assert!(told.contains("true (kept; --no-exec ends it)"), "{told}");
    let row = renewal(&alpha);
    assert_eq!(row["exec"], "true", "{row}");
    let stat = fs::metadata(text(&row, "key")).expect("a key");
    let mode = stat.permissions().mode() & 0o777;
    assert_eq!(
        (std::os::unix::fs::MetadataExt::gid(&stat), mode),
        (12345, 0o640)
    );
    let _ = alpha
        .cli(&[&issue[..], &["--exec", "exit 0"]].concat())
        .ok();
    assert_eq!(renewal(&alpha)["exec"], "exit 0");
    let _ = alpha.cli(&[&issue[..], &["--no-exec"]].concat()).ok();
    assert_eq!(renewal(&alpha)["exec"], Value::Null);
}
