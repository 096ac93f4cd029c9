//! Beside Knot and NSD: the same zones, the same questions, the same answers, but for
//! what [`rows`] argues.

mod asking;
mod odd;
mod question;
mod reply;
mod rows;
mod world;

use std::{collections::BTreeSet, env, fs, path::Path};

use innermesh_tests::{Lab, installed};

use crate::{
    question::{Places, Question},
    reply::Reply,
    rows::{ROWS, explain},
    world::World,
};

/// All that is data, what never is, and what nobody knows.
const TYPES: [u16; 38] = [
    0, 1, 2, 5, 6, 10, 12, 13, 15, 16, 17, 28, 29, 33, 35, 39, 41, 43, 44, 46, 47, 48, 50, 52, 64,
    65, 99, 128, 249, 250, 253, 254, 255, 256, 257, 258, 65280, 65535,
];
/// Differences that are shown when there are many.
const SHOWN: usize = 150;
/// Writes the list anew where it is set.
const WRITE: &str = "INNERMESH_WRITE_ODD_QUESTIONS";

fn list() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/odd.txt");
    if env::var_os(WRITE).is_some() {
        fs::write(&path, odd::lines().join("\n") + "\n").expect("the list");
    }
    fs::read_to_string(path).expect("the list")
}

#[test]
fn the_list_of_odd_questions_is_what_its_seed_makes() {
    let list = list();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), odd::LINES);
    assert!(lines == odd::lines(), "write it anew with {WRITE}=1");
    let places = Places {
        v4: "77.10.in-addr.arpa.".to_owned(),
        v6: "0.0.d.f.ip6.arpa.".to_owned(),
        own_v4: "1.0.77.10.in-addr.arpa.".to_owned(),
        own_v6: "1.0.0.d.f.ip6.arpa.".to_owned(),
    };
    for line in lines {
        let question = Question::read(line, &places);
        assert!(question.is_some(), "{line}");
    }
}

#[test]
fn every_name_and_3000_odd_questions_are_answered_as_knot_and_nsd_answer_them() {
    if !installed(&["knotd", "nsd"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let world = World::start(&lab.hosts[0]);
    let owners = world.owners();
    assert!(owners.len() > 40, "{owners:?}");
    let mut questions = Vec::new();
    let every = owners.iter().flat_map(|owner| {
        let line = move |rtype: &u16| format!("u 0000 {owner} {rtype}");
        TYPES.iter().map(line)
    });
    let odd = list();
    for line in every.chain(odd.lines().map(str::to_owned)) {
        let question = Question::read(&line, &world.places);
        questions.push(question.unwrap_or_else(|| panic!("{line} can't be read")));
    }
    let [ours, knot, nsd] = asking::ask_all(world.host, world.servers, &questions);
    world.assert_unchanged();
    let mut used = BTreeSet::new();
    let mut differ = Vec::new();
    for (index, question) in questions.iter().enumerate() {
        let [ours, knot, nsd] =
            [&ours, &knot, &nsd].map(|said| reply::read(said[index].as_deref()));
        match explain(question, &ours, [&knot, &nsd]) {
            Ok(rows) => used.extend(rows),
            Err(fields) => differ.push(shown(question, &fields, [&ours, &knot, &nsd])),
        }
    }
    let rows = ROWS.iter().enumerate();
    let unused: Vec<&str> = rows
        .filter(|(number, _)| !used.contains(number))
        .map(|(_, row)| row.why)
        .collect();
    assert!(
        differ.is_empty() && unused.is_empty(),
        "{} of {} differ; no question needs {unused:#?}\n{}",
        differ.len(),
        questions.len(),
        differ[..SHOWN.min(differ.len())].join("\n")
    );
}

fn shown(question: &Question, fields: &[&str], [ours, knot, nsd]: [&Reply; 3]) -> String {
    let mut text = question.line.clone();
    for field in fields {
        let of = |reply: &Reply| reply.get(field).cloned().unwrap_or("-".to_owned());
        let (ours, knot, nsd) = (of(ours), of(knot), of(nsd));
        text += &format!("\n    {field}: {ours} | knot {knot} | nsd {nsd}");
    }
    text
}
