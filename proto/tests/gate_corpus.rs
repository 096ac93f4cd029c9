//! The seeds of the fuzz target `gate`, run as an ordinary test.

#![allow(
    clippy::disallowed_methods,
    reason = "it reads the seeds from the source tree"
)]

use std::{fs, path::Path};

use innermesh_proto::gate::{GossipId, HeadFilter, Message, Name, Value, read, unwrap, wrap};

/// Nobody is known and nothing is a head.
struct Nobody;

impl HeadFilter for Nobody {
    fn verified(&self, _: &GossipId) -> Option<u64> {
        None
    }

    fn is_genuine(&self, _: &GossipId, _: &Value) -> bool {
        false
    }
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gate");
    let files = fs::read_dir(folder).expect("the corpus is part of the project");
    let mut files: Vec<_> = files
        .map(|file| {
            let path = file.expect("readable").path();
            let name = path
                .file_name()
                .expect("a file")
                .to_string_lossy()
                .into_owned();
            (name, fs::read(path).expect("readable"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_honest_seed_is_accepted_and_survives_its_envelope() {
    let me = GossipId {
        node: Name::new("me").unwrap(),
        generation: 1,
        address: ([127, 0, 0, 1], 1).into(),
    };
    let mut kinds = [0; 3];
    for (name, bytes) in corpus() {
        let message = Message::parse(&bytes);
        assert_eq!(unwrap(&wrap(&bytes)).as_ref(), Ok(&bytes), "{name}");
        if name.starts_with("honest-") {
            let message = message.unwrap_or_else(|error| panic!("{name}: {error}"));
            let incoming = read(&bytes, "a mesh", &me);
            let incoming = incoming.unwrap_or_else(|error| panic!("{name}: {error}"));
            let filtered = incoming.filter(&Nobody);
            assert!(Message::parse(&filtered.bytes).is_ok(), "{name}");
            match message {
                Message::Syn { .. } => kinds[0] += 1,
                Message::SynAck { .. } => kinds[1] += 1,
                Message::Ack { .. } => kinds[2] += 1,
                Message::BadCluster => panic!("{name} is not what an honest agent says"),
            }
        }
    }
    assert!(kinds.iter().all(|&count| count >= 4), "{kinds:?}");
}

#[test]
fn no_seed_with_one_byte_changed_or_cut_panics_the_gate() {
    let corpus = corpus();
    assert!(!corpus.is_empty());
    let mut accepted = 0;
    for (_, bytes) in corpus {
        for at in 0..bytes.len() {
            assert!(
                Message::parse(&bytes[..at]).is_err(),
                "a part passed for the whole"
            );
            let mut changed = bytes.clone();
            for byte in [0, 1, changed[at] ^ 0x80, 255] {
                changed[at] = byte;
                accepted += usize::from(Message::parse(&changed).is_ok());
            }
        }
    }
    assert!(
        accepted > 100,
        "only {accepted} were changed in a harmless place"
    );
}
