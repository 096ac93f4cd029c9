//! What `agent ca` does with the ledger's file and the recovery file, which it
//! reads itself, and on a terminal.

#![allow(clippy::disallowed_methods, reason = "a real process on a real host")]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use innermesh_agent::{host::key_files as keys, host::system, ledger::Ledger};
use innermesh_proto::ledger::{Author, Content, Request, RequestId};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_agent");

/// A machine that is in a mesh of its own, and whose agent doesn't run.
struct Machine {
    folder: tempfile::TempDir,
    passphrase: String,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = Self {
            folder,
            passphrase: String::new(),
        };
        // Each a port of its own for the page, as another's agent may run; free now,
        // and nobody else is likely to take it.
        let page = {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let config = format!(
            "listen = '127.0.0.1:0'\n[tunnel]\nbackend = 'none'\n[dns]\nlisten = ['127.0.0.1:0']\n\
             [page]\nport = {page}\n"
        );
        fs::create_dir(machine.path("mesh")).unwrap();
        fs::write(machine.path("mesh/config.toml"), config).unwrap();
        let init = ["init", "--domain", "lab.internal", "--name", "alpha"];
        let told = machine.json(&[&init[..], &["--no-start"]].concat());
        machine.passphrase = told["passphrase"].as_str().unwrap().to_string();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn recovery(&self) -> PathBuf {
        self.path("mesh/state/root-recovery.pem")
    }

    /// Runs it without a terminal.
    fn cli(&self, arguments: &[&str]) -> Output {
        // In a session of its own it has none to open.
        Command::new("setsid")
            .args(["--wait", PROGRAM, "--dir"])
            .arg(self.path("mesh"))
            .args(arguments)
            .env("INNERMESH_ROOT_PASSPHRASE", &self.passphrase)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let done = self.cli(&[arguments, &["--json"]].concat());
        assert!(done.status.success(), "{}", stderr(&done));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    fn refused(&self, arguments: &[&str], code: i32, part: &str) {
        let done = self.cli(arguments);
        assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
        assert!(stderr(&done).contains(part), "{}", stderr(&done));
    }

    /// Has the ledger give names, as its agent does.
    async fn claim(&self, names: &[&str]) {
        let host = system::host(self.path("mesh/state"));
        let key = keys::require_identity(&host).await.unwrap();
        let ledger = Ledger::open(&host, key.clone()).await.unwrap();
        for (n, name) in names.iter().enumerate() {
            let state = ledger.state();
            let request = Request::seal(
                &*key,
                state.mesh,
                RequestId([n as u8; 16]),
                Author::Node(key.public().node_id()),
                state.stamp_ms + 300_000,
                &Content::Claim(name.parse().unwrap()),
            );
            ledger.propose(request).await.unwrap();
        }
    }
}

fn stderr(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_what_was_decided_and_where_it_stops_being_right() {
    let machine = Machine::new();
    // The last one is refused, and so nothing of it is written.
    machine.claim(&["photos", "films", "music", "acme"]).await;
    let done = machine.cli(&["ca", "log"]);
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].ends_with("#0 the root founded the mesh lab.internal with alpha"));
    assert!(lines[1].ends_with("#1 alpha got the name photos"), "{text}");
    assert!(lines[3].ends_with("#3 alpha got the name music"), "{text}");
    assert!(
        stderr(&done).contains("verified 3 batches"),
        "{}",
        stderr(&done)
    );

    let entries = |arguments: &[&str]| {
        let told = machine.json(&[&["ca", "log"], arguments].concat());
        assert_eq!(told["verified"], 3);
        assert_eq!(told["problem"], Value::Null);
        let rows = told["entries"].as_array().unwrap().iter();
        rows.map(|row| row["index"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(entries(&[]), [0, 1, 2, 3]);
    assert_eq!(entries(&["--limit", "2"]), [2, 3]);
    assert!(entries(&["--refused"]).is_empty());
    assert_eq!(entries(&["--kind", "claim", "--node", "alpha"]), [1, 2, 3]);
    assert_eq!(entries(&["--kind", "founded"]), [0]);
    assert!(entries(&["--node", "beta"]).is_empty());
    assert_eq!(entries(&["--since", "1h"]).len(), 4);
    assert!(entries(&["--until", "1h"]).is_empty());

    // A batch that somebody changed, and put right as a file.
    let file = machine.path("mesh/state/ledger");
    let bytes = fs::read(&file).unwrap();
    let loaded = innermesh_agent::ledger::file::parse(bytes.clone()).unwrap();
    let mut forged = loaded.batches.clone();
    forged[1].proof = forged[0].proof.clone();
    let encoded = innermesh_agent::ledger::file::encode(&loaded.genesis, &forged);
    fs::write(&file, encoded).unwrap();
    machine.refused(&["ca", "log"], 1, "batch 2 at byte");
    let done = machine.cli(&["ca", "log", "--json"]);
    assert_eq!(done.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&told["verified"], &told["index"]), (&1.into(), &1.into()));
    assert!(
        told["problem"].as_str().unwrap().contains("majority"),
        "{told}"
    );

    // A bit that flipped on the disk.
    let mut damaged = bytes;
    let at = usize::try_from(loaded.offset(1)).unwrap() + 3;
    damaged[at] ^= 1;
    fs::write(&file, damaged).unwrap();
    machine.refused(&["ca", "log"], 1, "after batch 1");
}

#[test]
fn the_recovery_file_is_copied_with_its_passphrase_and_removed_with_its_copy() {
    let mut machine = Machine::new();
    let copy = machine.path("copy.pem");
    let copy = copy.to_str().unwrap();
    let right = std::mem::replace(&mut machine.passphrase, "wrong".into());
    machine.refused(&["ca", "root-key", "export", copy], 1, "wrong passphrase");
    assert!(!PathBuf::from(copy).exists());
    machine.passphrase = right;
    let told = machine.json(&["ca", "root-key", "export", copy]);
    assert_eq!(told["file"], copy);
    let text = fs::read_to_string(copy).unwrap();
    assert_eq!(text, fs::read_to_string(machine.recovery()).unwrap());
    let mode = fs::metadata(copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    machine.refused(&["ca", "root-key", "export", copy], 1, "left as it is");

    machine.refused(&["ca", "root-key", "seal"], 2, "--copy FILE");
    let itself = machine.path("itself.pem");
    symlink(machine.recovery(), &itself).unwrap();
    let itself = itself.to_str().unwrap();
    let seal = ["ca", "root-key", "seal", "--copy"];
    machine.refused(&[&seal[..], &[itself]].concat(), 1, "the file itself");
    let cut = machine.path("cut.pem");
    fs::write(&cut, &text[..text.len() / 2]).unwrap();
    let cut = cut.to_str().unwrap();
    machine.refused(&[&seal[..], &[cut]].concat(), 1, "damaged");
    let other = Machine::new();
    let foreign = other.recovery();
    let right = std::mem::replace(&mut machine.passphrase, other.passphrase.clone());
    let foreign = foreign.to_str().unwrap();
    machine.refused(&[&seal[..], &[foreign]].concat(), 1, "another mesh");
    machine.passphrase = right;
    assert!(machine.recovery().exists());

    let told = machine.json(&[&seal[..], &[copy]].concat());
    assert_eq!(told["removed"], true);
    assert!(!machine.recovery().exists());
    let told = machine.json(&[&seal[..], &[copy]].concat());
    assert_eq!(told["removed"], false);
    // The copy can be copied on.
    let folder = machine.path("stick");
    fs::create_dir(&folder).unwrap();
    let told = machine.json(&[
        "ca",
        "root-key",
        "export",
        folder.to_str().unwrap(),
        "--root-key",
        copy,
    ]);
    assert!(
        told["file"]
            .as_str()
            .unwrap()
            .ends_with("stick/root-recovery.pem")
    );
}

/// Runs it on a terminal, where `keys` are typed once a prompt is there.
fn typed(machine: &Machine, arguments: &str, keys: &[(&str, &str)]) -> (bool, String) {
    use std::io::{Read, Write};
    let line = format!(
        "env -u INNERMESH_ROOT_PASSPHRASE {PROGRAM} --dir {} {arguments}",
        machine.path("mesh").display()
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (mut seen, mut byte) = (String::new(), [0]);
    let mut keys = keys.iter();
    let mut next = keys.next();
    while output.read(&mut byte).unwrap_or(0) > 0 {
        seen.push(char::from(byte[0]));
        if let Some((prompt, key)) = next
            && seen.ends_with(prompt)
        {
            input.write_all(key.as_bytes()).unwrap();
            next = keys.next();
        }
    }
    (child.wait().unwrap().success(), seen)
}

#[test]
fn on_a_terminal_the_file_of_this_machine_is_used_once_somebody_agrees() {
    let machine = Machine::new();
    let agent = Command::new(PROGRAM)
        .arg("--dir")
        .arg(machine.path("mesh"))
        .arg("run")
        .stderr(Stdio::null())
        .spawn();
    let _agent = Running(agent.unwrap());
    machine.json(&["wait", "--nodes", "1", "--timeout", "60s"]);
    machine.refused(&["ca", "promote", "alpha"], 2, "--root-key FILE");
    let keys = [("[y/N] ", "n\n")];
    let (done, seen) = typed(&machine, "ca promote alpha", &keys);
    assert!(!done && seen.contains("--root-key FILE"), "{seen}");
    let wrong = [("[y/N] ", "y\n"), ("root-recovery.pem: ", "wrong\n")];
    let (done, seen) = typed(&machine, "ca promote alpha", &wrong);
    assert!(!done && seen.contains("wrong passphrase"), "{seen}");
    let phrase = format!("{}\n", machine.passphrase);
    let keys = [("[y/N] ", "y\n"), ("root-recovery.pem: ", phrase.as_str())];
    let (done, seen) = typed(&machine, "ca promote alpha", &keys);
    assert!(
        done && seen.contains("Created an intermediate certificate for alpha"),
        "{seen}"
    );
    assert!(!seen.contains(&machine.passphrase), "{seen}");
    let status = machine.json(&["ca", "status"]);
    let issuers = status["issuers"].as_array().unwrap();
    assert_eq!(issuers[1]["state"], "next", "{status}");
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn on_a_terminal_the_file_is_removed_once_the_domain_is_typed_and_no_secret_is_shown() {
    let machine = Machine::new();
    let phrase = format!("{}\n", machine.passphrase);
    let prompts = ["root-recovery.pem: ", "from this machine: "];
    let keys = [(prompts[0], phrase.as_str()), (prompts[1], "lab\n")];
    let (done, seen) = typed(&machine, "ca root-key seal", &keys);
    assert!(!done && seen.contains("the file stays"), "{seen}");
    assert!(machine.recovery().exists());
    let keys = [
        (prompts[0], phrase.as_str()),
        (prompts[1], "lab.internal\n"),
    ];
    let (done, seen) = typed(&machine, "ca root-key seal", &keys);
    assert!(done && seen.contains("is removed"), "{seen}");
    assert!(!seen.contains(&machine.passphrase), "{seen}");
    assert!(!machine.recovery().exists());
}
