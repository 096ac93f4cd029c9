//! The table in tests/CONSTRAINTS.md: what each verifier does with each case,
//! and what has to hold of it.

use std::{fs, path::Path, thread};

use innermesh_tests::leave_out;

use crate::{
    authority::Authority,
    cases::{self, Case, Must},
    verifiers::{Chain, VERIFIERS, Verdict, Verifier},
};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/CONSTRAINTS.md");
/// The table stands between these lines.
const BEGIN: &str = "<!-- measured by tests/pki, from here -->\n";
const END: &str = "<!-- to here -->\n";
/// Set, the document is written anew.
const WRITE: &str = "INNERMESH_WRITE_TABLE";

/// What was measured of one case; in the order of the verifiers that are there.
struct Measured {
    case: Case,
    ours: bool,
    others: Vec<Verdict>,
}

#[test]
fn names_outside_of_the_mesh_are_refused_and_the_table_tells_by_whom() {
    let authority = Authority::new();
    let mut present: Vec<(Verifier, String)> = Vec::new();
    for verifier in VERIFIERS {
        match verifier.version() {
            Some(version) => present.push((verifier, version)),
            None => leave_out(format!("{} is not installed", verifier.name())),
        }
    }
    let verifiers: Vec<Verifier> = present.iter().map(|(verifier, _)| *verifier).collect();
    let all = cases::all();
    let mut measured = Vec::new();
    // Most of it is other programs starting up.
    for few in all.chunks(8) {
        thread::scope(|scope| {
            let running: Vec<_> = few
                .iter()
                .map(|case| scope.spawn(|| measure(&authority, case, &verifiers)))
                .collect();
            measured.extend(running.into_iter().map(|one| one.join().expect("measured")));
        });
    }
    let faults: Vec<String> = measured
        .iter()
        .flat_map(|one| faults(one, &verifiers))
        .collect();
    let table = table(&measured, &present);
    if std::env::var_os(WRITE).is_some() {
        let text = fs::read_to_string(DOCUMENT).expect("the document");
        let (head, _, tail) = parts(&text);
        let text = [head, BEGIN, &table, END, tail].concat();
        fs::write(DOCUMENT, text).expect("the document");
    }
    assert!(faults.is_empty(), "{faults:#?}\n{table}");
    compare(&table);
}

fn measure(authority: &Authority, case: &Case, verifiers: &[Verifier]) -> Measured {
    let forged = authority.forge(&case.forgery(authority));
    let between = forged.between.as_deref();
    let chain = Chain {
        leaf: &forged.leaf,
        between: between
            .into_iter()
            .chain([authority.issuer.der()])
            .collect(),
        root: authority.root.der(),
    };
    let host = case.target.text(authority);
    Measured {
        case: case.clone(),
        ours: authority.check(&forged.leaf).is_ok(),
        others: verifiers
            .iter()
            .map(|verifier| verifier.verdict(&chain, &forged.key, &host))
            .collect(),
    }
}

/// The one case in which a client takes a host that isn't the mesh's.
const EXCEPTION: (Verifier, &str) = (Verifier::Nss, "common name outside, address inside");

/// What must not be.
fn faults(one: &Measured, verifiers: &[Verifier]) -> Vec<String> {
    let (case, must) = (&one.case, one.case.must);
    let mut faults = Vec::new();
    if one.ours != (must == Must::Accept) {
        let does = if one.ours { "accepts" } else { "refuses" };
        faults.push(format!("{}: the mesh's own code {does} it", case.title));
    }
    for (verifier, verdict) in verifiers.iter().zip(&one.others) {
        if must == Must::Accept && *verdict != Verdict::Accepts {
            faults.push(format!(
                "{}: {} doesn't accept it",
                case.title,
                verifier.name()
            ));
        }
    }
    for (verifier, verdict) in verifiers.iter().zip(&one.others) {
        let taken = *verdict == Verdict::Accepts && !case.target.is_of_mesh();
        if taken && (*verifier, case.title) != EXCEPTION {
            let name = verifier.name();
            faults.push(format!("{}: {name} takes a host outside", case.title));
        }
    }
    let let_through = must != Must::Accept && one.others.contains(&Verdict::Accepts);
    if let_through && case.note.is_empty() {
        faults.push(format!(
            "{}: accepted, and nothing says why that is safe",
            case.title
        ));
    }
    faults
}

fn table(measured: &[Measured], present: &[(Verifier, String)]) -> String {
    let mut heads: Vec<String> = ["case", "names", "asked for", "must", "ours"]
        .map(str::to_owned)
        .into();
    for (verifier, version) in present {
        heads.push(format!("{} {version}", verifier.name()));
    }
    heads.push("where it is accepted, safe because".into());
    let mut out = row(&heads);
    out.push_str(&"|---".repeat(heads.len()));
    out.push_str("|\n");
    for one in measured {
        let case = &one.case;
        let must = match case.must {
            Must::Accept => "accept",
            Must::Refuse => "refuse",
            Must::Ours => "ours refuses",
        };
        let ours = if one.ours { "accepts" } else { "refuses" };
        let mut cells: Vec<String> = vec![
            case.title.into(),
            case.shown(),
            case.target.shown(),
            must.into(),
            ours.into(),
        ];
        cells.extend(one.others.iter().map(Verdict::to_string));
        cells.push(case.note.into());
        out.push_str(&row(&cells));
    }
    out
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// The document without its table, and the table.
fn parts(text: &str) -> (&str, &str, &str) {
    text.split_once(BEGIN)
        .and_then(|(head, rest)| {
            let (table, tail) = rest.split_once(END)?;
            Some((head, table, tail))
        })
        .expect("the lines around the table")
}

/// The columns of the document must be as measured; those of a verifier that
/// isn't here, or is of another version, can't be compared.
fn compare(measured: &str) {
    let text = fs::read_to_string(Path::new(DOCUMENT)).expect("the document");
    let (_, written, _) = parts(&text);
    let (written, measured) = (columns(written), columns(measured));
    for verifier in VERIFIERS {
        let known = written
            .iter()
            .any(|column| column[0].starts_with(verifier.name()));
        assert!(
            known,
            "tests/CONSTRAINTS.md lacks {}; {WRITE}=1 writes it anew",
            verifier.name()
        );
    }
    for column in &written {
        match measured.iter().find(|other| other[0] == column[0]) {
            Some(other) => assert_eq!(
                column, other,
                "tests/CONSTRAINTS.md says otherwise than what was measured; if that is \
                 right, {WRITE}=1 writes it anew"
            ),
            None => println!(
                "not compared: the version here is another than {}",
                column[0]
            ),
        }
    }
}

fn columns(table: &str) -> Vec<Vec<&str>> {
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let width = rows.first().map_or(0, Vec::len);
    (0..width)
        .map(|at| rows.iter().map(|row| row[at]).collect())
        .collect()
}
