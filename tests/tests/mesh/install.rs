//! `ops/install` below a folder of its own.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use innermesh_tests::{
    Agent, Lab,
    agent::{DOMAIN, PATIENCE, program},
    skip, wait_for,
};
use tempfile::TempDir;

#[test]
fn it_installs_program_unit_manual_completions_and_example_twice_alike_and_takes_them_off() {
    let root = TempDir::new().expect("a folder");
    let binary = stand_in(root.path());
    let target = root.path().join("target");
    let first = install(&target, &["--binary", &binary]);
    assert!(
        first.contains("agent init"),
        "it says what to do next: {first}"
    );

    let prefix = target.join("usr/local");
    for (path, content) in [
        ("share/man/man1/agent.1", "man\n"),
        (
            "share/bash-completion/completions/agent",
            "completions bash\n",
        ),
        ("share/man/man1/innermesh.1", ".so man1/agent.1\n"),
        (
            "share/doc/innermesh/config.toml.example",
            "config example\n",
        ),
        (
            "share/bash-completion/completions/innermesh",
            "completions bash\n",
        ),
        ("share/zsh/site-functions/_agent", "completions zsh\n"),
        (
            "share/fish/vendor_completions.d/agent.fish",
            "completions fish\n",
        ),
    ] {
        assert_eq!(fs::read_to_string(prefix.join(path)).expect(path), content);
    }
    let mode = fs::metadata(prefix.join("bin/agent"))
        .expect("the program")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
    for (unit, starts) in [
        ("innermesh", "run"),
        ("innermesh-overlay", "overlay load"),
        ("innermesh-resolver", "dns apply-left"),
    ] {
        let unit = fs::read_to_string(prefix.join(format!("lib/systemd/system/{unit}.service")));
        let starts = format!("\nExecStart=/usr/local/bin/agent {starts}\n");
        assert!(unit.expect("the unit").contains(&starts));
    }

    let link = prefix.join("bin/innermesh");
    assert_eq!(fs::read_link(&link).expect("a link"), Path::new("agent"));

    let before = files(&target);
    let second = install(&target, &["--binary", &binary]);
    assert!(
        !second.contains("installed "),
        "nothing had to be done: {second}"
    );
    assert_eq!(files(&target), before);

    let state = target.join("var/lib/innermesh");
    fs::create_dir_all(&state).expect("a folder");
    let off = install(&target, &["--uninstall"]);
    assert!(off.contains("kept "), "{off}");
    assert!(files(&target).is_empty(), "{:?}", files(&target));
    assert!(!prefix.join("share/doc/innermesh").exists());
    assert!(state.is_dir());
}

#[test]
fn a_program_of_somebody_else_keeps_its_name() {
    let root = TempDir::new().expect("a folder");
    let binary = stand_in(root.path());
    let target = root.path().join("target");
    let foreign = target.join("usr/local/bin/innermesh");
    fs::create_dir_all(foreign.parent().expect("a folder")).expect("a folder");
    fs::write(&foreign, "foreign").expect("a file");
    let told = install(&target, &["--binary", &binary]);
    assert!(told.contains("it is another program"), "{told}");
    let _ = install(&target, &["--uninstall"]);
    assert_eq!(fs::read_to_string(&foreign).expect("a file"), "foreign");
}

#[test]
fn the_unit_names_the_program_under_another_prefix() {
    let root = TempDir::new().expect("a folder");
    let binary = stand_in(root.path());
    let target = root.path().join("target");
    let _ = install(&target, &["--binary", &binary, "--prefix", "/opt/mesh"]);
    let unit = target.join("etc/systemd/system/innermesh.service");
    let unit = fs::read_to_string(unit).expect("the unit");
    assert!(
        unit.contains("\nExecStart=/opt/mesh/bin/agent run\n"),
        "{unit}"
    );
}

#[test]
fn under_sudo_it_is_built_with_the_cargo_of_whoever_called_it() {
    let Some(_lab) = Lab::new(0) else { return };
    let root = TempDir::new().expect("a folder");
    let checkout = root.path().join("checkout");
    let home = root.path().join("home");
    fs::create_dir_all(&checkout).expect("a folder");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(ops())
        .arg(&checkout)
        .status();
    assert!(copied.expect("cp can be run").success());
    let passwd = root.path().join("passwd");
    let user = format!(
        "builder:x:4711:4711::{}:/usr/sbin/nologin\n",
        home.display()
    );
    let users = fs::read_to_string("/etc/passwd").expect("users");
    fs::write(&passwd, users + &user).expect("a file");
    let build = || {
        let target = root.path().join("target");
        // The user is there for this command only.
        let script =
            r#"mount --bind "$1" /etc/passwd && cd / && SUDO_USER=builder exec "$2" --root "$3""#;
        let mut unshared = Command::new("unshare");
        unshared.args(["--mount", "sh", "-c", script, "sh"]);
        let output = unshared
            .args([&passwd, &checkout.join("ops/install"), &target])
            .output();
        output.expect("unshare can be run")
    };

    fs::create_dir_all(&home).expect("a folder");
    let without = build();
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert_eq!(without.status.code(), Some(1), "{without:?}");
    assert!(said.contains("no cargo in the PATH of builder"), "{said}");

    let bin = home.join(".cargo/bin");
    fs::create_dir_all(&bin).expect("a folder");
    let cargo = r#"#!/bin/sh
mkdir -p target/dist && printf '#!/bin/sh\necho "$@"\n' >target/dist/agent && chmod 755 target/dist/agent
echo "$@" >target/asked
"#;
    fs::write(bin.join("cargo"), cargo).expect("a file");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(bin.join("cargo"), mode.clone()).expect("its mode");
    fs::set_permissions(root.path(), mode).expect("its mode");
    let owned = Command::new("chown")
        .arg("-R")
        .arg("4711:4711")
        .arg(root.path())
        .status();
    assert!(owned.expect("chown can be run").success());
    let with = build();
    assert!(with.status.success(), "{with:?}");
    let asked = checkout.join("target/asked");
    assert_eq!(fs::metadata(&asked).expect("built").uid(), 4711);
    let asked = fs::read_to_string(&asked).expect("built");
    assert!(asked.contains("--profile dist"), "{asked}");
    assert!(root.path().join("target/usr/local/bin/agent").is_file());
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    for (arguments, code) in [
        (&["--colour"][..], 2),
        (&["--prefix"], 2),
        (&["--prefix", "here"], 2),
        (
            &["--root", "/nonexistent", "--binary", "/nonexistent/agent"],
            1,
        ),
    ] {
        let output = run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn systemd_accepts_the_units_and_finds_them_confined() {
    let scratch = TempDir::new().expect("a folder");
    // In tenths of 10, where 10 is a service without any confinement.
    for (name, most) in [("innermesh-overlay.service", 35), ("innermesh.service", 30)] {
        accepts(&scratch, name, most);
    }
}

#[test]
fn the_unit_that_closes_the_overlay_needs_no_mount_namespace() {
    let unit = ops().join("systemd/innermesh-overlay.service");
    let unit = fs::read_to_string(unit).expect("the unit");
    assert!(unit.contains("\nRestart=on-failure\n"), "{unit}");
    // By systemd.exec(5).
    let namespaces = [
        "BindPaths",
        "BindReadOnlyPaths",
        "CacheDirectory",
        "DynamicUser",
        "ExecPaths",
        "InaccessiblePaths",
        "MountAPIVFS",
        "MountFlags",
        "NoExecPaths",
        "PrivateDevices",
        "PrivateIPC",
        "PrivateMounts",
        "PrivateTmp",
        "ProcSubset",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ProtectSystem",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "RootDirectory",
        "RootImage",
        "TemporaryFileSystem",
    ];
    let keys = unit.lines().filter_map(|line| line.split_once('='));
    let asked: Vec<&str> = keys
        .map(|(key, _)| key)
        .filter(|key| namespaces.contains(key))
        .collect();
    assert!(asked.is_empty(), "{asked:?}");
}

fn accepts(scratch: &TempDir, name: &str, most: u32) {
    let unit = fs::read_to_string(ops().join("systemd").join(name)).expect("the unit");
    // Neither the program nor its manual is installed here.
    let unit = unit
        .replace("/usr/local/bin/agent run", "/bin/true")
        .replace("/usr/local/bin/agent overlay load", "/bin/true")
        .replace("man:agent(1)", "man:true(1)");
    let file = scratch.path().join(name);
    fs::write(&file, unit).expect("a file");
    let file = file.to_string_lossy().into_owned();

    let analyze = |arguments: &[&str]| {
        Command::new("systemd-analyze")
            .args(arguments)
            .arg(&file)
            .output()
    };
    let verified = match analyze(&["verify", "--man=no"]) {
        Ok(output) => output,
        Err(why) => {
            skip(format!("systemd-analyze: {why}"));
            return;
        }
    };
    let complaints: Vec<_> = String::from_utf8_lossy(&verified.stderr)
        .lines()
        .filter(|l| l.contains("innermesh"))
        .map(str::to_owned)
        .collect();
    assert!(
        verified.status.success() && complaints.is_empty(),
        "{complaints:#?}"
    );

    let most = format!("--threshold={most}");
    let rated = analyze(&["security", "--offline=yes", &most]).expect("systemd-analyze");
    assert!(
        rated.status.success(),
        "{}",
        String::from_utf8_lossy(&rated.stdout)
    );
}

#[test]
fn the_agent_works_with_the_capabilities_that_the_unit_leaves_it() {
    let Some(lab) = Lab::new(1) else { return };
    let unit = fs::read_to_string(ops().join("systemd/innermesh.service")).expect("the unit");
    let kept = unit
        .lines()
        .find_map(|l| l.strip_prefix("CapabilityBoundingSet="))
        .expect("the unit bounds capabilities");
    let bounds: Vec<String> = kept
        .split_whitespace()
        .map(|c| format!("+{}", c.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let bounds = format!("-all,{}", bounds.join(","));

    let agent = Agent::new(&lab.hosts[0], "alpha");
    let init = ["init", "--domain", DOMAIN, "--name", "alpha", "--no-start"];
    let _ = agent.cli(&init).ok();
    let confined = ["setpriv", "--no-new-privs", "--bounding-set", &bounds];
    let (program, dir) = (program().to_string_lossy(), agent.dir.to_string_lossy());
    let run = [&*program, "--dir", &*dir, "run"];
    let mut process = agent
        .host
        .start("confined", &[&confined[..], &run].concat(), &[]);
    wait_for("the confined agent", PATIENCE, || {
        assert!(process.ended().is_none(), "{}", process.log());
        agent.cli(&["status"]).result()
    });
    agent.wait_answer(
        &["alpha.lab.internal", "A"],
        &[&agent.overlay_ipv4("alpha")],
    );
    let shown = agent.host.run(&["wg", "show", "all", "public-key"]).ok();
    assert!(!shown.trim().is_empty(), "the tunnel is up");
}

/// A program that prints its arguments.
fn stand_in(directory: &Path) -> String {
    let path = directory.join("stand-in");
    fs::write(&path, "#!/bin/sh\necho \"$@\"\n").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    path.to_string_lossy().into_owned()
}

fn install(target: &Path, arguments: &[&str]) -> String {
    let output = run(&[&["--root", &target.to_string_lossy()], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(ops().join("install"))
        .args(arguments)
        .output()
        .expect("ops/install can be run")
}

fn ops() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("ops")
}

/// All files below a folder, with their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}
