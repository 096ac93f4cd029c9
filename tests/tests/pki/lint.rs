//! pkilint's findings about each profile, and what the other programs say of
//! each chain.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    thread,
};

use innermesh_agent::ca::pem;
use innermesh_tests::{leave_out, skip};
use serde_json::Value;

use crate::{
    profiles::{self, Kind, Profile},
    verifiers::{VERIFIERS, Verdict, Verifier, run},
};

/// RFC 5280.
const PKIX: &str = "lint_pkix_cert";
/// The CA/Browser Forum's rules for TLS servers.
const CABF: &str = "lint_cabf_serverauth_cert";
/// Its rules change from year to year; these are they of this day.
const RULES_OF: &str = "2026-11-01T00:00:00Z";
/// RFC 5280, of a certificate and the one that signed it.
const CHAIN: &str = "lint_pkix_signer_signee_cert_chain";

/// Findings that stay, and why.
const ACCEPTED: &[Accepted] = &[
    (
        PKIX,
        Kind::Service,
        "pkix.invalid_domain_name_syntax",
        "a wildcard: RFC 5280 §4.2.1.6 leaves it to others, RFC 9525 §6.3 takes it",
    ),
    (CABF, Kind::Service, "cabf.internal_domain_name", PRIVATE),
    (CABF, Kind::Membership, "cabf.internal_domain_name", PRIVATE),
    (CABF, Kind::Service, "cabf.internal_ip_address", PRIVATE),
    (CABF, Kind::Membership, "cabf.internal_ip_address", PRIVATE),
    (
        CABF,
        Kind::Service,
        "cabf.serverauth.certificate_validity_period_exceeds_200_days",
        "only where `--days` asks for it; Apple takes 825 days from a root that a person installed",
    ),
    (
        CABF,
        Kind::Service,
        "cabf.serverauth.subscriber.authority_info_access_extension_absent",
        NO_AIA,
    ),
    (
        CABF,
        Kind::Membership,
        "cabf.serverauth.subscriber.authority_info_access_extension_absent",
        NO_AIA,
    ),
    (
        CABF,
        Kind::Service,
        "cabf.serverauth.subscriber.certificate_policies_extension_absent",
        POLICY,
    ),
    (
        CABF,
        Kind::Membership,
        "cabf.serverauth.subscriber.certificate_policies_extension_absent",
        POLICY,
    ),
    (
        CABF,
        Kind::Service,
        "cabf.serverauth.subscriber.revocation_information_absent",
        REVOCATION,
    ),
    (
        CABF,
        Kind::Membership,
        "cabf.serverauth.subscriber.revocation_information_absent",
        LEDGER,
    ),
    (
        CABF,
        Kind::Service,
        "msft.end_entity.revocation_information_absent",
        REVOCATION,
    ),
    (
        CABF,
        Kind::Membership,
        "msft.end_entity.revocation_information_absent",
        LEDGER,
    ),
    (
        CABF,
        Kind::Service,
        "cabf.serverauth.subscriber.subject_key_identifier_extension_present",
        KEY_ID,
    ),
    (
        CABF,
        Kind::Membership,
        "cabf.serverauth.subscriber.subject_key_identifier_extension_present",
        KEY_ID,
    ),
    (
        CABF,
        Kind::Service,
        "cabf.serverauth.subscriber_rsa_digitalsignature_and_keyencipherment_present",
        "no more than a warning there, and NSS takes no RSA certificate without it",
    ),
    (
        CABF,
        Kind::Membership,
        "cabf.serverauth.dv.common_name_attribute_present",
        NODE_ID,
    ),
    (
        CABF,
        Kind::Membership,
        "cabf.serverauth.subscriber_common_name_unknown_source",
        NODE_ID,
    ),
    (
        CABF,
        Kind::Membership,
        "cabf.serverauth.prohibited_subject_public_key_algorithm_encoding",
        "an Ed25519 key: the certificate is for agents, which no browser talks to",
    ),
];

const PRIVATE: &str = "names and addresses of the mesh are what a private CA is for";
const NO_AIA: &str = "there is no OCSP, and servers show the issuer";
const POLICY: &str = "policies tell public CAs apart";
const REVOCATION: &str =
    "browsers ask nothing of a private CA's list; the certificate is short-lived";
const LEDGER: &str = "agents know from the ledger who is a member";
const KEY_ID: &str = "RFC 5280 §4.2.1.2 wants it";
const NODE_ID: &str = "the node's id, which no client takes for a host";

/// The linter, of what, the finding's code, and the reason why it stays.
type Accepted = (&'static str, Kind, &'static str, &'static str);

#[test]
fn pkilint_finds_nothing_but_what_a_private_ca_does_on_purpose() {
    let Some(folder) = linters() else {
        skip("pkilint is not installed; ops/test gets it from PyPI");
        return;
    };
    check_findings(&folder, &profiles::all(), true);
}

/// Lints each of `all`. Where they are `complete`, each accepted finding must
/// be there: the list is to stay true.
pub fn check_findings(folder: &Path, all: &[Profile], complete: bool) {
    let findings: Vec<Finding> = thread::scope(|scope| {
        let running: Vec<_> = all
            .iter()
            .map(|profile| scope.spawn(|| lint(folder, profile)))
            .collect();
        let all = running.into_iter().map(|one| one.join().expect("linted"));
        all.flatten().collect()
    });
    let is = |finding: &Finding, (linter, kind, code, _): &Accepted| {
        (finding.linter, finding.kind, finding.code.as_str()) == (linter, *kind, *code)
    };
    let new: BTreeSet<&str> = findings
        .iter()
        .filter(|finding| !ACCEPTED.iter().any(|accepted| is(finding, accepted)))
        .map(|finding| finding.text.as_str())
        .collect();
    assert!(new.is_empty(), "{new:#?}");
    let unseen: Vec<&Accepted> = ACCEPTED
        .iter()
        .filter(|accepted| !findings.iter().any(|finding| is(finding, accepted)))
        .collect();
    assert!(
        !complete || unseen.is_empty(),
        "not found any more: {unseen:#?}"
    );
}

#[test]
fn every_verifier_accepts_every_profile_for_each_of_its_names() {
    check_accepted(&profiles::all());
}

/// Has each verifier that is here judge each leaf, for each of its names.
pub fn check_accepted(all: &[Profile]) {
    let faults: Vec<String> = thread::scope(|scope| {
        let running = VERIFIERS.map(|verifier| scope.spawn(move || refused(verifier, all)));
        let faults = running.into_iter().map(|one| one.join().expect("judged"));
        faults.flatten().collect()
    });
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What a verifier doesn't accept, though it should.
fn refused(verifier: Verifier, all: &[Profile]) -> Vec<String> {
    let name = verifier.name();
    let Some(version) = verifier.version() else {
        leave_out(format!("{name} is not installed"));
        return vec![];
    };
    let mut faults = Vec::new();
    for profile in all {
        // Memberships are for agents, whose keys are Ed25519. Browsers don't
        // want such keys, and NSS doesn't know them up to 3.98.
        if verifier == Verifier::Nss && profile.kind == Kind::Membership {
            continue;
        }
        for host in &profile.hosts {
            let verdict = verifier.verdict(&profile.chain(), &profile.key, host);
            if verdict != Verdict::Accepts {
                let title = &profile.title;
                faults.push(format!("{name} {version}: {title} as {host}: {verdict}"));
            }
        }
    }
    faults
}

struct Finding {
    linter: &'static str,
    kind: Kind,
    code: String,
    /// All of it, for a reader.
    text: String,
}

fn lint(folder: &Path, profile: &Profile) -> Vec<Finding> {
    let scratch = tempfile::tempdir().expect("a folder");
    let file = |name: &str, der: &[u8]| {
        let path = scratch.path().join(name);
        fs::write(&path, pem::encode(pem::CERTIFICATE, der)).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let own = file("own.pem", &profile.der);
    let by = file("by.pem", &profile.by);
    let mut found = findings(folder, PKIX, profile, &[&own]);
    found.extend(findings(folder, CHAIN, profile, &[&by, &own]));
    if matches!(profile.kind, Kind::Membership | Kind::Service) {
        let words = [
            "-t",
            "DV-FINAL-CERTIFICATE",
            "--validity-period-start",
            RULES_OF,
            &own,
        ];
        found.extend(findings(folder, CABF, profile, &words));
    }
    found
}

fn findings(
    folder: &Path,
    linter: &'static str,
    profile: &Profile,
    words: &[&str],
) -> Vec<Finding> {
    let words = [&["lint", "-s", "WARNING", "-f", "JSON"], words].concat();
    // Its exit code is the number of findings.
    let done = run(folder.join(linter), &words, None).expect("the linter");
    let report: Value = serde_json::from_str(&done.text)
        .unwrap_or_else(|error| panic!("{linter}: {error}: {}", done.text));
    let results = report["results"].as_array().expect("results");
    let each = results.iter().flat_map(|result| {
        let descriptions = result["finding_descriptions"].as_array();
        let descriptions = descriptions.expect("descriptions").iter();
        descriptions.map(move |description| (&result["node_path"], description))
    });
    each.map(|(place, description)| Finding {
        linter,
        kind: profile.kind,
        code: description["code"].as_str().expect("a code").to_owned(),
        text: format!("{linter}: {}: {place}: {description}", profile.title),
    })
    .collect()
}

/// The folder of pkilint's programs: `INNERMESH_PKILINT`, or of the search path.
pub fn linters() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::var_os("INNERMESH_PKILINT")
        .map(PathBuf::from)
        .into_iter()
        .chain(env::split_paths(&path))
        .find(|folder| folder.join(PKIX).is_file())
}
