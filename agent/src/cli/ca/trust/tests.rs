//! Detection, and all steps of a store, on machines that are folders, with
//! tools that write down how they were called.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{
    anchor::{Anchor, tests::anchor},
    machine::{Caller, Machine, Owner},
    record::Record,
    report::{Change, Changed, State},
    work::{self, Stores},
};

/// A machine below a folder, whose tools lie in its `bin`.
struct Fake {
    machine: Machine,
    folder: TempDir,
}

impl Fake {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        for place in ["bin", "home", "state"] {
            fs::create_dir(root.join(place)).unwrap();
        }
        let owner = Owner {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        };
        let machine = Machine {
            path: vec![root.join("bin")],
            java_home: None,
            is_root: true,
            caller: Caller {
                owner,
                home: root.join("home"),
            },
            root,
        };
        Self { machine, folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.machine.at(path)
    }

    fn folder(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    /// A tool that writes down how it was called and does what `script` says
    /// with `$root`, below which the machine lies. Another program writes it:
    /// what this process has open for writing can't be run.
    fn tool(&self, name: &str, script: &str) {
        let root = self.folder.path().display();
        let text = format!(
            "#!/bin/sh\nset -e\nroot={root}\necho \"{name} $*\" >>\"$root/calls\"\n{script}\n"
        );
        let mut install = Command::new("install")
            .args(["-m", "755", "/dev/stdin"])
            .arg(self.at(&format!("bin/{name}")))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = install.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        assert!(install.wait().unwrap().success());
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.at("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn stores(&self) -> Stores {
        Stores::find(&self.machine, &self.at("state"))
    }

    fn record(&self) -> Record {
        Record::at(self.at("state")).unwrap()
    }

    async fn install(&self, anchor: &Anchor) -> Vec<Changed> {
        let mut record = self.record();
        let mut changed = Vec::new();
        for store in self.stores().found {
            let done = work::install(&*store, anchor, &self.machine, &mut record).await;
            changed.push(done.unwrap());
        }
        changed
    }

    async fn uninstall(&self) -> Vec<Changed> {
        let mut record = self.record();
        let mut changed = Vec::new();
        for entry in record.entries().iter().rev().cloned().collect::<Vec<_>>() {
            let scratch = self.at("state");
            let done = work::uninstall(&entry, &self.machine, &scratch, &mut record).await;
            changed.push(done.unwrap());
        }
        changed
    }

    async fn state(&self, anchor: &Anchor) -> State {
        let stores = self.stores().found;
        work::look(&*stores[0], anchor, false).await.state
    }
}

fn results(changed: &[Changed]) -> Vec<Change> {
    changed.iter().map(|store| store.result).collect()
}

/// The tool of Fedora, reduced to what it reads and makes.
const FEDORA: &str = r#"
DEST=/etc/pki/ca-trust/extracted
mkdir -p "$root$DEST/pem"
cat "$root"/etc/pki/ca-trust/source/anchors/* >"$root$DEST/pem/tls-ca-bundle.pem" || true"#;

/// That of SUSE, which names no folder of roots.
const SUSE: &str = r#"
statedir="/var/lib/ca-certificates"
mkdir -p "$root$statedir"
cat "$root"/etc/pki/trust/anchors/* "$root"/usr/share/pki/trust/anchors/* \
    >"$root$statedir/ca-bundle.pem" 2>/dev/null || true"#;

/// That of Debian.
const DEBIAN: &str = r#"
LOCALCERTSDIR=/usr/local/share/ca-certificates
mkdir -p "$root/etc/ssl/certs"
cat "$root$LOCALCERTSDIR"/*.crt >"$root/etc/ssl/certs/ca-certificates.crt" || true"#;

/// `trust` of p11-kit, on Arch.
const TRUST: &str = r#"
bundle="$root/etc/ca-certificates/extracted/tls-ca-bundle.pem"
mkdir -p "${bundle%/*}"
case "$1 $2" in
"anchor --store") cat "$3" >>"$bundle" ;;
"anchor --remove") grep -vxFf "$3" "$bundle" >"$bundle.new" || true; mv "$bundle.new" "$bundle" ;;
esac"#;

/// A whole life in one kind of system, with the root in `file` in between,
/// whose first call is `command`, and whose last one is `last`.
async fn lives(fake: &Fake, file: &str, command: &str, last: &str) {
    let root = anchor("lab.internal");
    let name = root.name();
    assert_eq!(fake.state(&root).await, State::Absent);
    assert_eq!(results(&fake.install(&root).await), [Change::Installed]);
    assert_eq!(fake.state(&root).await, State::Installed);
    let file = fake.at(file).join(format!("{name}.crt"));
    assert_eq!(fs::read_to_string(&file).unwrap(), root.pem());
    assert_eq!(fake.calls(), [command]);
    // Again: nothing is called, nothing changes.
    assert_eq!(results(&fake.install(&root).await), [Change::Already]);
    assert_eq!(fake.calls(), [command]);
    // The root of a new mesh of that domain beside it.
    let new = anchor("lab.internal");
    assert_eq!(fake.state(&new).await, State::Other);
    assert_eq!(results(&fake.install(&new).await), [Change::Installed]);
    let undone = fake.uninstall().await;
    assert_eq!(results(&undone), [Change::Removed; 2]);
    assert!(!file.exists());
    assert_eq!(fake.calls().last().unwrap(), last);
    assert_eq!(fake.state(&root).await, State::Absent);
    assert_eq!(fake.state(&new).await, State::Absent);
    assert!(fake.uninstall().await.is_empty());
}

#[tokio::test]
async fn fedora_is_known_by_its_tool() {
    let fake = Fake::new();
    fake.tool("update-ca-trust", FEDORA);
    fake.tool("trust", TRUST);
    // Those of others mislead nobody.
    fake.folder("/usr/local/share/ca-certificates");
    fake.folder("/etc/pki/trust/anchors");
    let anchors = "/etc/pki/ca-trust/source/anchors";
    fake.folder(anchors);
    lives(
        &fake,
        anchors,
        "update-ca-trust extract",
        "update-ca-trust extract",
    )
    .await;
}

#[tokio::test]
async fn suse_is_told_from_debian_by_what_its_tool_reads() {
    for anchors in ["/etc/pki/trust/anchors", "/usr/share/pki/trust/anchors"] {
        let fake = Fake::new();
        fake.tool("update-ca-certificates", SUSE);
        fake.tool("trust", TRUST);
        fake.folder("/usr/local/share/ca-certificates");
        fake.folder(anchors);
        lives(
            &fake,
            anchors,
            "update-ca-certificates ",
            "update-ca-certificates ",
        )
        .await;
    }
}

#[tokio::test]
async fn debian_is_known_by_its_tool_although_folders_of_others_are_there() {
    let fake = Fake::new();
    fake.tool("update-ca-certificates", DEBIAN);
    fake.tool("trust", TRUST);
    fake.folder("/etc/pki/ca-trust/source/anchors");
    fake.folder("/etc/pki/trust/anchors");
    let anchors = "/usr/local/share/ca-certificates";
    lives(
        &fake,
        anchors,
        "update-ca-certificates ",
        "update-ca-certificates --fresh",
    )
    .await;
}

#[tokio::test]
async fn on_arch_the_root_goes_through_trust_anchor() {
    let fake = Fake::new();
    fake.tool("trust", TRUST);
    fake.tool("update-ca-trust", "DEST=/etc/ca-certificates/extracted");
    let root = anchor("lab.internal");
    assert_eq!(fake.state(&root).await, State::Absent);
    assert_eq!(results(&fake.install(&root).await), [Change::Installed]);
    assert_eq!(results(&fake.install(&root).await), [Change::Already]);
    let given = fake.at("state").join(format!("{}.crt", root.name()));
    assert!(!given.exists());
    assert_eq!(results(&fake.uninstall().await), [Change::Removed]);
    assert_eq!(fake.state(&root).await, State::Absent);
    let given = given.display();
    let called = |what: &str| format!("trust anchor --{what} {given}");
    assert_eq!(fake.calls(), [called("store"), called("remove")]);
}

#[test]
fn a_tool_that_reads_from_elsewhere_is_told_and_left_alone() {
    let fake = Fake::new();
    fake.folder("/usr/local/share/ca-certificates");
    let stores = fake.stores();
    assert!(stores.found.is_empty());
    let missing = stores.missing.unwrap();
    assert!(
        missing.contains("install the package ca-certificates"),
        "{missing}"
    );
    fake.tool("update-ca-certificates", "exit 0");
    let stores = fake.stores();
    assert!(stores.found.is_empty());
    let missing = stores.missing.unwrap();
    assert!(
        missing.contains("bin/update-ca-certificates reads"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_failed_tool_leaves_neither_file_nor_record_and_the_next_store_its_chance() {
    let fake = Fake::new();
    let anchors = "/usr/local/share/ca-certificates";
    fake.folder(anchors);
    // It fails where there is something, and works again without.
    let failing = format!(
        "{DEBIAN}\nfor f in \"$root$LOCALCERTSDIR\"/*.crt; do\n    [ ! -e \"$f\" ] || {{ echo no room >&2; exit 1; }}\ndone"
    );
    fake.tool("update-ca-certificates", &failing);
    fake.tool("certutil", "echo bad database >&2; exit 255");
    fake.folder("/home/.pki/nssdb");
    fs::write(fake.at("/home/.pki/nssdb/cert9.db"), "").unwrap();
    let changed = fake.install(&anchor("lab.internal")).await;
    assert_eq!(results(&changed), [Change::Failed; 2]);
    let why = changed[0].detail.as_deref().unwrap();
    assert!(
        why.contains("update-ca-certificates failed: no room"),
        "{why}"
    );
    let why = changed[1].detail.as_deref().unwrap();
    assert!(why.contains("bad database"), "{why}");
    assert_eq!(fs::read_dir(fake.at(anchors)).unwrap().count(), 0);
    assert!(fake.record().entries().is_empty());
}

#[tokio::test]
async fn a_tool_that_does_nothing_is_found_out() {
    let fake = Fake::new();
    fake.tool("update-ca-trust", "# /etc/pki/ca-trust");
    let changed = fake.install(&anchor("lab.internal")).await;
    assert_eq!(results(&changed), [Change::Failed]);
    let why = changed[0].detail.as_deref().unwrap();
    assert!(why.contains("isn't in it"), "{why}");
    assert!(fake.record().entries().is_empty());
}

#[tokio::test]
async fn what_others_put_in_is_neither_overwritten_nor_taken_out() {
    let fake = Fake::new();
    let anchors = "/etc/pki/ca-trust/source/anchors";
    fake.tool("update-ca-trust", FEDORA);
    fake.folder(anchors);
    // The same root under a name of theirs.
    let root = anchor("lab.internal");
    let theirs = fake.at(anchors).join("theirs.pem");
    fs::write(&theirs, root.pem()).unwrap();
    assert_eq!(results(&fake.install(&root).await), [Change::Installed]);
    let undone = fake.uninstall().await;
    assert_eq!(results(&undone), [Change::Removed]);
    let detail = undone[0].detail.as_deref().unwrap();
    assert!(detail.contains("still there"), "{detail}");
    assert_eq!(results(&fake.install(&root).await), [Change::Already]);
    assert!(fake.record().entries().is_empty());
    assert!(theirs.exists());
    // Something else under our name.
    let other = anchor("other.internal");
    let file = fake.at(anchors).join(format!("{}.crt", other.name()));
    fs::write(&file, "theirs").unwrap();
    assert_eq!(results(&fake.install(&other).await), [Change::Failed]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
}

#[tokio::test]
async fn without_root_the_system_is_left_for_sudo_and_without_certutil_its_package_is_named() {
    let mut fake = Fake::new();
    fake.machine.is_root = false;
    fake.tool("update-ca-certificates", DEBIAN);
    fake.tool("apt-get", "");
    let profile = "/home/snap/firefox/common/.mozilla/firefox/abc.default";
    for folder in [profile, "/home/.mozilla/firefox/Crash Reports"] {
        fake.folder(folder);
    }
    fs::write(fake.at(profile).join("cert9.db"), "").unwrap();
    let root = anchor("lab.internal");
    let changed = fake.install(&root).await;
    assert_eq!(results(&changed), [Change::NeedsRoot, Change::NoTool]);
    assert_eq!(Path::new(&changed[1].place), fake.at(profile));
    let why = changed[1].detail.as_deref().unwrap();
    assert_eq!(why, "certutil isn't installed; `apt install libnss3-tools`");
    assert!(fake.calls().is_empty());
    let stores = fake.stores().found;
    let looked = work::look(&*stores[0], &root, false).await;
    assert!(!looked.writable);
    assert_eq!(looked.detail.as_deref(), Some("not writable without sudo"));
}

#[tokio::test]
async fn an_ended_root_is_told_as_such() {
    let fake = Fake::new();
    fake.tool("update-ca-trust", FEDORA);
    fake.folder("/etc/pki/ca-trust/source/anchors");
    let root = super::anchor::tests::root("lab.internal", 0);
    assert_eq!(results(&fake.install(&root).await), [Change::Installed]);
    assert_eq!(fake.state(&root).await, State::Expired);
}

#[tokio::test]
async fn old_and_new_java_are_found_once_each_and_asked_in_their_own_way() {
    let mut fake = Fake::new();
    let script = |home: &str| {
        format!(
            "case $2 in -list) echo 'Alias name: x'; cat \"$root/{home}\" || true;; -importcert) cat >\"$root/{home}\";; esac"
        )
    };
    for (home, cacerts) in [
        ("jdk8", "jre/lib/security/cacerts"),
        ("jdk17", "lib/security/cacerts"),
    ] {
        fake.folder(&format!("{home}/bin"));
        fake.folder(
            Path::new(&format!("{home}/{cacerts}"))
                .parent()
                .unwrap()
                .to_str()
                .unwrap(),
        );
        fs::write(fake.at(&format!("{home}/{cacerts}")), "").unwrap();
        fake.tool(
            &format!("../{home}/bin/keytool"),
            &script(&format!("{home}/held")),
        );
    }
    fake.folder("jdk17/lib/modules");
    let keytool = fake.at("jdk17/bin/keytool");
    std::os::unix::fs::symlink(keytool, fake.at("bin/keytool")).unwrap();
    fake.machine.java_home = Some(fake.at("jdk8"));
    let root = anchor("lab.internal");
    let changed = fake.install(&root).await;
    assert_eq!(results(&changed), [Change::Installed; 2]);
    let places: Vec<_> = changed.iter().map(|c| PathBuf::from(&c.place)).collect();
    assert_eq!(places, [fake.at("jdk8"), fake.at("jdk17")]);
    let calls = fake.calls();
    let imports: Vec<_> = calls.iter().filter(|c| c.contains("-importcert")).collect();
    let cacerts = fake.at("jdk8/jre/lib/security/cacerts");
    let keystore = format!("-keystore {}", cacerts.display());
    assert!(imports[0].contains(&keystore), "{imports:?}");
    assert!(imports[1].ends_with("-cacerts"), "{imports:?}");
    fake.machine.java_home = Some(fake.at("jdk17"));
    assert_eq!(fake.stores().found.len(), 1);
}

#[tokio::test]
async fn what_the_systems_tool_put_into_java_goes_with_what_was_put_into_the_system() {
    let fake = Fake::new();
    fake.folder("/usr/local/share/ca-certificates");
    // As Debian's hook, which never takes anything out.
    let hook = r#"for f in "$root$LOCALCERTSDIR"/*.crt; do
    [ ! -e "$f" ] || { echo "Alias name: debian:$(basename "$f" .crt).pem"; cat "$f"; } >"$root/held"
done"#;
    fake.tool("update-ca-certificates", &format!("{DEBIAN}\n{hook}"));
    fake.folder("/jdk/bin");
    fake.folder("/jdk/lib/modules");
    fake.folder("/jdk/lib/security");
    fs::write(fake.at("/jdk/lib/security/cacerts"), "").unwrap();
    let keytool = "case $2 in -list) cat \"$root/held\" ;; -delete) : >\"$root/held\" ;; esac";
    fake.tool("../jdk/bin/keytool", keytool);
    fs::write(fake.at("/held"), "").unwrap();
    std::os::unix::fs::symlink(fake.at("jdk/bin/keytool"), fake.at("bin/keytool")).unwrap();
    let root = anchor("lab.internal");
    let changed = fake.install(&root).await;
    assert_eq!(results(&changed), [Change::Installed, Change::Already]);
    let alias = format!("debian:{}.pem", root.name());
    let detail = changed[1].detail.as_deref().unwrap();
    assert!(detail.ends_with(&alias), "{detail}");
    let undone = fake.uninstall().await;
    assert_eq!(results(&undone), [Change::Removed; 2]);
    let deleted = fake
        .calls()
        .iter()
        .any(|c| c.contains(&format!("-delete -alias {alias}")));
    assert!(deleted, "{:?}", fake.calls());
}

#[tokio::test]
async fn a_damaged_record_is_refused_and_two_do_not_write_at_once() {
    let fake = Fake::new();
    let held = fake.record();
    let second = Record::at(fake.at("state")).err().unwrap().to_string();
    assert!(
        second.contains("another `agent ca trust` is at work"),
        "{second}"
    );
    drop(held);
    for text in ["{", "{\"version\":2,\"installed\":[]}"] {
        fs::write(fake.at("state/trust.json"), text).unwrap();
        let error = Record::at(fake.at("state")).err().unwrap().to_string();
        assert!(error.contains("nothing was changed"), "{error}");
    }
}
