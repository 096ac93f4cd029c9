//! The program itself: exit codes, and one agent's life with its command line.
//! It has no tunnel, and everything is on loopback.

#![allow(clippy::disallowed_methods, reason = "a real process on a real host")]

use std::{
    fs,
    io::Write,
    net::{TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_agent");
/// The user that every system has for having no rights.
const NOBODY: u32 = 65_534;

/// An agent's folder, and the agent while it runs.
struct Agent {
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Agent {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Other users are let in, as in /run.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Free now, and nobody else is likely to take it.
        let dns = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let page = TcpListener::bind("127.0.0.1:0").unwrap();
        let page = page.local_addr().unwrap().port();
        let config = format!(
            "listen = '127.0.0.1:0'\n[tunnel]\nbackend = 'none'\n[dns]\nlisten = ['{dns}']\n\
             [page]\nport = {page}\n"
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        Self {
            folder,
            process: None,
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .arg("--dir")
            .arg(self.folder.path())
            .args(line.split_whitespace())
            .env_remove("NOTIFY_SOCKET");
        command
    }

    fn cli(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// What a command prints that has to succeed.
    fn ok(&self, line: &str) -> String {
        let done = self.cli(line);
        assert_eq!(code(&done), 0, "{line}: {}", stderr(&done));
        String::from_utf8(done.stdout).unwrap()
    }

    fn start(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        self.process = Some(self.command("run").stderr(log).spawn().unwrap());
        self.ok("wait --nodes 1 --timeout 60s");
    }

    /// Sends a signal and waits for the end.
    fn end(&mut self, signal: nix::sys::signal::Signal) -> std::process::ExitStatus {
        let mut process = self.process.take().unwrap();
        let id = nix::unistd::Pid::from_raw(process.id().cast_signed());
        nix::sys::signal::kill(id, signal).unwrap();
        process.wait().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn code(done: &Output) -> i32 {
    done.status.code().unwrap_or(-1)
}

fn stderr(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn commands_end_with_the_codes_that_scripts_know() {
    let agent = Agent::new();
    for (line, expected, part) in [
        ("version", 0, ""),
        ("--help", 0, ""),
        ("completions bash", 0, ""),
        ("man", 0, ""),
        ("run --print-config", 0, ""),
        ("run", 1, "in no mesh"),
        ("", 2, "Usage"),
        ("invite --role king", 2, "possible values: admin"),
        ("init --domain printer.local", 2, ".local"),
        ("status", 3, "the agent isn't running"),
        ("service list --json", 3, "the agent isn't running"),
        ("wait --timeout 1s", 4, "still missing"),
    ] {
        let done = agent.cli(line);
        assert_eq!(code(&done), expected, "{line}: {}", stderr(&done));
        assert!(stderr(&done).contains(part), "{line}: {}", stderr(&done));
    }
}

#[test]
fn a_wrong_configuration_is_named_with_its_file() {
    let agent = Agent::new();
    let file = agent.folder.path().join("config.toml");
    fs::write(&file, "lisen = 1").unwrap();
    let done = agent.cli("run");
    assert_eq!(code(&done), 1);
    let text = stderr(&done);
    assert!(
        text.contains("config.toml, line 1") && text.contains("lisen"),
        "{text}"
    );
}

#[test]
fn an_agent_lives_and_ends_as_it_is_told() {
    let mut agent = Agent::new();
    let made = agent.ok("init --domain lab.internal --name alpha --no-start --json");
    for field in ["\"mesh\":", "\"recovery_file\":", "\"passphrase\":"] {
        assert!(made.contains(field), "{made}");
    }
    let state = agent.folder.path().join("state");
    assert_eq!(
        fs::metadata(&state).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let twice = agent.cli("init --domain lab.internal --name alpha --no-start");
    assert!(
        stderr(&twice)
            .contains("in the mesh lab.internal already, and its agent doesn't run: start it"),
        "{}",
        stderr(&twice)
    );

    agent.start();
    assert!(agent.ok("status").contains("alpha"));
    assert!(
        agent
            .ok("service add web --port 80 --json")
            .contains("web.alpha.lab.internal")
    );
    assert!(agent.ok("dns query alpha").contains("alpha.lab.internal."));
    assert!(
        agent
            .ok("dns query web.alpha.lab.internal")
            .contains("IN A 10.")
    );
    assert!(agent.ok("invite --json").contains("\"token\":\""));
    second_agent_is_refused(&agent);
    certificates_are_written(&agent);
    services_follow_their_files(&agent);
    strangers_may_look_only(&agent);

    let ended = agent.end(nix::sys::signal::Signal::SIGTERM);
    assert!(ended.success(), "{ended}");
    assert!(!agent.folder.path().join("agent.sock").exists());
    assert_eq!(code(&agent.cli("status")), 3);

    agent.start();
    agent.end(nix::sys::signal::Signal::SIGKILL);
    assert!(agent.folder.path().join("agent.sock").exists());
    assert_eq!(code(&agent.cli("status")), 3, "a socket without an agent");
    agent.start();
    assert!(agent.ok("service list").contains("web"), "it was kept");
    // A file that is wrong keeps no agent from its start.
    assert!(agent.ok("status --json").contains("bad.toml"));
    assert!(agent.ok("service list").contains("docs"));

    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let ended = agent.end(nix::sys::signal::Signal::SIGINT);
    assert!(ended.success(), "{ended}");
    let open = agent.cli("run");
    assert!(stderr(&open).contains("`chmod 700 "), "{}", stderr(&open));
}

fn second_agent_is_refused(agent: &Agent) {
    let second = agent.cli("run");
    assert_eq!(code(&second), 1);
    assert!(
        stderr(&second).contains("another agent runs on"),
        "{}",
        stderr(&second)
    );
    assert_eq!(code(&agent.cli("status")), 0, "the first is as it was");
}

fn certificates_are_written(agent: &Agent) {
    let issued = agent.ok("cert issue web --days 3 --json");
    for field in [
        "\"cert\":",
        "\"key\":",
        "\"chain\":",
        "\"serial\":",
        "\"not_after\":\"2",
    ] {
        assert!(issued.contains(field), "{issued}");
    }
    let key = agent.folder.path().join("certs/web.key");
    let first = fs::read_to_string(&key).unwrap();
    agent.ok("cert issue web");
    assert_eq!(
        fs::read_to_string(&key).unwrap(),
        first,
        "renewed with the same key"
    );
    fs::write(&key, "of somebody else").unwrap();
    let refused = agent.cli("cert issue web");
    assert_eq!(code(&refused), 1);
    assert_eq!(fs::read_to_string(&key).unwrap(), "of somebody else");
    assert!(agent.ok("cert list").contains("web.lab.internal"));
    assert!(
        agent
            .ok("ca root")
            .starts_with("-----BEGIN CERTIFICATE-----")
    );
    let elsewhere = agent.cli("cert issue nobodys-name");
    assert_eq!(code(&elsewhere), 1, "{}", stderr(&elsewhere));
}

/// Waits until what a command prints has a part, or has it no more.
fn until(agent: &Agent, line: &str, part: &str, has: bool) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let said = agent.ok(line);
        if said.contains(part) == has {
            return;
        }
        assert!(Instant::now() < end, "{part}: {said}");
    }
}

fn services_follow_their_files(agent: &Agent) {
    const KEPT: &str = "the service wiki stays as it was before";
    let folder = agent.folder.path().join("services.d");
    let put = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    fs::create_dir(&folder).unwrap();
    put("wiki.toml", "name = 'wiki'\nport = 8080\n");
    until(agent, "service list", "8080/tcp", true);
    put(".wiki.toml", "an editor's own");
    put("wiki.toml~", "an editor's own");
    put("wiki.toml", "name = 'wiki'\nprt = 8081\n");
    until(agent, "status --json", KEPT, true);
    assert!(agent.ok("service list").contains("8080/tcp"));
    let checked = agent.cli("config check");
    assert_eq!(code(&checked), 1);
    put("wiki.new", "name = 'wiki'\nport = 8081\n");
    fs::rename(folder.join("wiki.new"), folder.join("wiki.toml")).unwrap();
    until(agent, "service list", "8081/tcp", true);
    until(agent, "status --json", "service-file", false);
    fs::remove_file(folder.join("wiki.toml")).unwrap();
    until(agent, "service list", "wiki", false);
    // By hand still, as it was before.
    put("docs.toml", "name = 'docs'\nport = 8082\n");
    let id = agent.process.as_ref().unwrap().id().cast_signed();
    let id = nix::unistd::Pid::from_raw(id);
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGHUP).unwrap();
    until(agent, "service list", "8082/tcp", true);
    put("bad.toml", "name =");
    until(agent, "status --json", "bad.toml", true);
}

/// Needs root, to be somebody else.
fn strangers_may_look_only(agent: &Agent) {
    if !nix::unistd::geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "not run as root: the other user is left out"
        );
        return;
    }
    // The program may lie where nobody else may go.
    let open = tempfile::tempdir().unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = open.path().join("agent");
    fs::copy(PROGRAM, &program).unwrap();
    let as_nobody = |line: &str| {
        Command::new(&program)
            .arg("--dir")
            .arg(agent.folder.path())
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .current_dir(Path::new("/"))
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap()
    };
    let seen = as_nobody("status --json");
    assert_eq!(code(&seen), 0, "{}", stderr(&seen));
    for line in [
        "invite",
        "service add x --port 1",
        "service rm web",
        "cert issue web --out /tmp",
    ] {
        let refused = as_nobody(line);
        assert_eq!(code(&refused), 1, "{line}");
        assert!(
            stderr(&refused).contains("read-only access; use sudo"),
            "{line}: {}",
            stderr(&refused)
        );
    }
}

#[test]
fn a_token_goes_by_standard_input_and_is_never_on_a_command_line() {
    let mut alpha = Agent::new();
    alpha.ok("init --domain in.example.org --name alpha --no-start");
    alpha.start();
    let invite: serde_json::Value = serde_json::from_str(&alpha.ok("invite --json")).unwrap();
    let text = |field: &str| invite[field].as_str().unwrap().to_owned();
    let beta = Agent::new();
    // What a shell runs is the pipe's right side; the left side is its own.
    let ours = format!("{PROGRAM} --dir {} join", beta.folder.path().display());
    let line = text("command").replace("agent join", &ours) + " --name beta --no-start";
    let (left, right) = line.split_once(" | ").unwrap();
    assert!(left.starts_with("printf ") && !right.contains(&text("token")));
    let joined = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(code(&joined), 0, "{}", stderr(&joined));
    // A person pastes it; it isn't in the command that is printed.
    let printed = alpha.ok("invite");
    let mut lines = printed.lines().map(str::trim);
    let command = lines.find(|line| line.starts_with("agent join ")).unwrap();
    assert!(command.ends_with(" --token -"), "{printed}");
    assert!(lines.any(|line| line.starts_with("imt1")), "{printed}");
    // Nothing on standard input is no token.
    let gamma = Agent::new();
    let mut join = gamma.command("join 127.0.0.1:1 --token - --name gamma --no-start");
    let refused = join.stdin(Stdio::null()).output().unwrap();
    assert_eq!(code(&refused), 2, "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("no token"),
        "{}",
        stderr(&refused)
    );
}
