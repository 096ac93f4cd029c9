//! Certificates of a public CA for names of the mesh, by the lines of
//! `ops/docs/sinkhole.md`; pebble stands for the CA and asks the sinkhole as strangers do.

use std::{fs, path::Path};

use innermesh_tests::{
    Agent, Finished, Lab,
    acme::start_pebble_asking,
    agent::{DOMAIN, PATIENCE},
    installed, missing,
    wait::ensure,
    wait_for,
    web::{EXAMPLE_DOMAIN, LEGO, Web, add_service},
};

const PORT: u16 = 14000;
/// A value as ACME clients give it to their hooks; some begin with a hyphen.
const VALUE: &str = "-q0zYx8wv7ut6sr5qp4on3ml2kj1ih0gf9ed8cb7a_A";
/// What stands for it in the document.
const SHOWN: &str = "Aq0z…";

/// The blocks of the section on public certificates, for the tests' domain.
fn blocks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/docs/sinkhole.md");
    let text = fs::read_to_string(path).expect("the document");
    let section = text
        .split_once("### Public certificates for inner names\n")
        .expect("the section")
        .1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let fenced = section.split("```").skip(1).step_by(2);
    let blocks = fenced.map(|block| {
        let block = block.strip_prefix("sh\n").unwrap_or(block);
        // A folder that the host of the test has to itself.
        let block = block.replace("/usr/local/bin/", "/usr/local/share/");
        block.replace(EXAMPLE_DOMAIN, DOMAIN).replace(SHOWN, VALUE)
    });
    blocks.collect()
}

/// The block that has this in it.
fn block<'b>(blocks: &'b [String], part: &str) -> &'b str {
    let mut fitting = blocks.iter().filter(|block| block.contains(part));
    let block = fitting.next();
    assert!(fitting.next().is_none(), "{part} stands in one block");
    block.unwrap_or_else(|| panic!("no block has {part}"))
}

/// Where acme.sh keeps its files.
const ACME_SH: &str = "/var/lib/acme.sh";

/// Runs lines with certbot, lego and acme.sh asking pebble, whatever else they say.
fn typed(web: &Web<'_>, lines: &str) -> Finished {
    let url = format!("https://photos.{DOMAIN}:{PORT}/dir");
    let script = format!(
        "certbot() {{ command certbot --server {url} --non-interactive --agree-tos \
             --register-unsafely-without-email \"$@\"; }}\n\
         lego() {{ command lego --server {url} --accept-tos --path {LEGO} \"$@\"; }}\n\
         acme.sh() {{ command acme.sh --server {url} --home {ACME_SH} \"$@\"; }}\n{lines}"
    );
    web.run(&["bash", "-euc", &script])
}

fn names_in(web: &Web<'_>, file: &str) -> String {
    let words = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in"];
    web.host.run(&[&words[..], &[file]].concat()).ok()
}

fn assert_no_challenge(agent: &Agent) {
    let records = agent.json(&["record", "list"]).to_string();
    assert!(!records.contains("_acme-challenge"), "{records}");
}

#[test]
fn certbot_lego_and_acme_sh_show_control_of_a_name_by_what_sinkholes_tell_strangers() {
    if !installed(&["certbot", "lego", "pebble", "openssl", "bash"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let at = lab.hosts[0].ipv4;
    let config = format!("[sinkhole]\ndns = [\"{at}\"]\n");
    let mut alpha = Agent::with_config(&lab.hosts[0], "alpha", &config);
    let mut beta = Agent::new(&lab.hosts[1], "beta");
    alpha.init();
    beta.join(&alpha);
    let _ = alpha.cli(&["role", "add", "alpha", "sinkhole"]).ok();
    add_service(&beta, "photos", 443);
    wait_for("the name server of strangers", PATIENCE, || {
        let words = ["dns", "zone", "--public", "--delegated"];
        let told = beta.cli(&words).result()?;
        ensure(told.contains(&at.to_string()), told)
    });
    let web = Web::new(&beta);
    let (_, _pebble) = start_pebble_asking(&beta, &web, PORT, (at, 53).into());
    let blocks = blocks();

    // By hand.
    let add = block(&blocks, VALUE);
    let told = typed(&web, add).ok();
    assert!(told.contains("alpha serves it to strangers"), "{told}");
    let _ = typed(&web, "agent record rm _acme-challenge.photos TXT").ok();
    // CAA records of the domain are an admin's.
    for line in block(&blocks, " CAA ").lines().map(str::trim) {
        let words = line.strip_prefix("agent ").expect("a line of the agent");
        let words: Vec<&str> = words.split(' ').collect();
        let _ = alpha.cli(&words).ok();
    }

    let _ = typed(&web, block(&blocks, "certbot certonly")).ok();
    let live = format!("/etc/letsencrypt/live/photos.{DOMAIN}/cert.pem");
    assert!(names_in(&web, &live).contains(&format!("DNS:photos.{DOMAIN}")));
    assert_no_challenge(&beta);

    let _ = typed(&web, block(&blocks, "lego --email")).ok();
    let file = format!("{LEGO}/certificates/photos.{DOMAIN}.crt");
    assert!(names_in(&web, &file).contains(&format!("DNS:photos.{DOMAIN}")));
    assert_no_challenge(&beta);

    // acme.sh is in no package of Debian's: what it calls, as it calls it; and itself, for
    // who has it.
    let functions = block(&blocks, "dns_innermesh_add");
    let call = |what: &str| {
        let line = format!("{functions}\n{what} _acme-challenge.photos.{DOMAIN} '{VALUE}'");
        typed(&web, &line).ok()
    };
    let told = call("dns_innermesh_add");
    assert!(told.contains("alpha serves it to strangers"), "{told}");
    let _ = call("dns_innermesh_rm");
    assert_no_challenge(&beta);
    if missing(&["acme.sh"]).is_none() {
        web.put(&format!("{ACME_SH}/dnsapi/dns_innermesh.sh"), functions);
        let _ = typed(&web, block(&blocks, "acme.sh --issue")).ok();
        let file = format!("{ACME_SH}/photos.{DOMAIN}_ecc/photos.{DOMAIN}.cer");
        assert!(names_in(&web, &file).contains(&format!("DNS:photos.{DOMAIN}")));
        assert_no_challenge(&beta);
    }
}
