//! Why no agent answers, and what to do: by what the state folder holds, and by
//! what systemd says of the agent's unit.

use std::{collections::BTreeMap, fs, io, time::Duration};

use super::{
    paths::Paths,
    unit::{UNIT, by_systemd},
};
use crate::{
    host::{disk::SystemDisk, state_folder},
    ledger::file::LEDGER,
};

/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is asked of the unit (systemctl(1), "show").
const PROPERTIES: &str =
    "LoadState,ActiveState,SubState,Result,ExecMainStatus,NRestarts,ConditionResult,UnitFileState";

/// What to do where no agent answers.
pub async fn remedy(paths: &Paths) -> String {
    let folder = Folder::look(paths).await;
    let unit = if by_systemd(paths) {
        unit().await
    } else {
        None
    };
    let person = Person {
        option: paths.option(),
        sudo: paths.dir.is_none() && !nix::unistd::geteuid().is_root(),
    };
    advice(&folder, unit.as_ref(), &person)
}

/// How whoever asks writes a command.
struct Person {
    /// `--dir`, with a space before it.
    option: String,
    sudo: bool,
}

impl Person {
    fn command(&self, command: &str) -> String {
        let sudo = if self.sudo { "sudo " } else { "" };
        format!("`{sudo}{command}`")
    }

    fn agent(&self, command: &str) -> String {
        self.command(&format!("agent{} {command}", self.option))
    }
}

/// What the state folder says.
#[derive(Debug, PartialEq, Eq)]
enum Folder {
    /// Of a member, as far as it goes.
    Member,
    /// Of one that has left its mesh, and how to make room for another.
    Left(String),
    /// There is no ledger.
    NoMesh,
    /// This user may not look into it.
    Closed,
}

impl Folder {
    async fn look(paths: &Paths) -> Self {
        let disk = SystemDisk::new(paths.state.clone());
        match state_folder::left(&disk).await {
            Ok(Some(_)) => return Self::Left(state_folder::make_room(&disk).await),
            Ok(None) => {}
            Err(_) => return Self::Closed,
        }
        match fs::metadata(paths.state.join(LEDGER)) {
            Ok(_) => Self::Member,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::NoMesh,
            Err(_) => Self::Closed,
        }
    }
}

/// What systemd says of the agent's unit.
#[derive(Debug, Default)]
struct Unit(BTreeMap<String, String>);

impl Unit {
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    /// How its agent ended the last time, where that wasn't as it should be.
    fn end(&self) -> Option<String> {
        let status = self.get("ExecMainStatus");
        Some(match self.get("Result") {
            "success" | "" => return None,
            "exit-code" => format!("it ended with exit code {status}"),
            "signal" | "core-dump" => format!("signal {status} ended it"),
            "watchdog" => "systemd ended it, as it gave no sign of life".into(),
            "oom-kill" => "it was ended, as memory ran out".into(),
            "timeout" => "it took too long to start or to stop".into(),
            other => format!("its unit's result is \"{other}\""),
        })
    }
}

/// `None` where systemd doesn't answer.
async fn unit() -> Option<Unit> {
    let asked = tokio::process::Command::new("systemctl")
        .args(["show", UNIT, "--property", PROPERTIES])
        .kill_on_drop(true)
        .output();
    let done = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&done.stdout);
    done.status.success().then(|| Unit::parse(&text))
}

fn advice(folder: &Folder, unit: Option<&Unit>, person: &Person) -> String {
    match folder {
        Folder::Left(room) => {
            return format!(
                "this machine has left its mesh, so there is nothing to run. To have it in a mesh \
                 again, make room for {} with a new invite: {room}",
                person.agent("join")
            );
        }
        Folder::NoMesh => {
            return format!(
                "this machine is in no mesh: {} makes one, {} joins one",
                person.agent("init"),
                person.agent("join")
            );
        }
        Folder::Member | Folder::Closed => {}
    }
    match unit {
        None => format!("start it with {}", person.agent("run")),
        Some(unit) => of_unit(folder, unit, person),
    }
}

fn of_unit(folder: &Folder, unit: &Unit, person: &Person) -> String {
    let name = UNIT;
    let log = person.command(&format!("journalctl -u {name} -n 50"));
    let start = person.command(if unit.get("UnitFileState") == "enabled" {
        "systemctl start innermesh"
    } else {
        "systemctl enable --now innermesh"
    });
    let ended = unit.end();
    match (unit.get("LoadState"), unit.get("ActiveState")) {
        ("not-found", _) => format!(
            "{name} is not installed: start the agent with {}",
            person.agent("run")
        ),
        ("masked", _) => format!(
            "{name} is masked: {}, then {start}",
            person.command("systemctl unmask innermesh")
        ),
        (_, "failed") => {
            let ended = ended.unwrap_or_else(|| "it failed".into());
            format!("{ended}: {log} tells why, {start} tries again")
        }
        (_, "activating") if unit.get("SubState") == "auto-restart" => {
            let ended = ended.unwrap_or_else(|| "it ended".into());
            let times = unit.get("NRestarts");
            format!(
                "{ended}, and systemd starts it again and again ({times} times so far): {log} tells why"
            )
        }
        (_, "activating") => format!("systemd is starting it: {} waits", person.agent("wait")),
        (_, "deactivating") => "systemd is stopping it".into(),
        (_, "active" | "reloading") => format!(
            "{name} is active, and yet nothing answers there: {log} tells more, {} starts it anew",
            person.command("systemctl restart innermesh")
        ),
        _ if *folder == Folder::Closed && unit.get("ConditionResult") == "no" => format!(
            "systemd didn't start {name}, as a condition of it wasn't met: this machine is in no \
             mesh, or has left it; {} tells which",
            person.agent("status")
        ),
        _ => format!("start it with {start}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Person {
        Person {
            option: String::new(),
            sudo: false,
        }
    }

    fn told(folder: &Folder, show: &str) -> String {
        let unit = Unit::parse(&show.replace(' ', "\n"));
        advice(folder, Some(&unit), &root())
    }

    #[test]
    fn who_left_or_is_in_no_mesh_is_never_told_to_start_the_agent() {
        let left = Folder::Left("move /x away".into());
        for folder in [&left, &Folder::NoMesh] {
            for show in [
                "LoadState=loaded ActiveState=inactive ConditionResult=no",
                "LoadState=loaded ActiveState=failed Result=exit-code",
            ] {
                let told = told(folder, show);
                assert!(!told.contains("systemctl"), "{told}");
                assert!(told.contains("agent join"), "{told}");
            }
        }
        let told = advice(&left, None, &root());
        assert!(told.contains("has left its mesh"), "{told}");
        assert!(told.contains("move /x away"), "{told}");
    }

    #[test]
    fn what_to_do_follows_what_systemd_says_of_the_unit() {
        for (show, part) in [
            (
                "LoadState=loaded ActiveState=inactive SubState=dead Result=success UnitFileState=enabled",
                "`systemctl start innermesh`",
            ),
            (
                "LoadState=loaded ActiveState=inactive Result=success UnitFileState=disabled",
                "`systemctl enable --now innermesh`",
            ),
            (
                "LoadState=not-found ActiveState=inactive",
                "not installed: start the agent with `agent run`",
            ),
            (
                "LoadState=masked ActiveState=inactive",
                "systemctl unmask innermesh",
            ),
            (
                "LoadState=loaded ActiveState=failed Result=exit-code ExecMainStatus=1",
                "exit code 1: `journalctl -u innermesh.service -n 50`",
            ),
            (
                "LoadState=loaded ActiveState=activating SubState=auto-restart Result=signal ExecMainStatus=9 NRestarts=4",
                "signal 9 ended it, and systemd starts it again and again (4 times so far)",
            ),
            (
                "LoadState=loaded ActiveState=activating SubState=start",
                "is starting it",
            ),
            ("LoadState=loaded ActiveState=active", "is active, and yet"),
        ] {
            let told = told(&Folder::Member, show);
            assert!(told.contains(part), "{show}: {told}");
        }
        let closed = told(
            &Folder::Closed,
            "LoadState=loaded ActiveState=inactive ConditionResult=no",
        );
        assert!(closed.contains("in no mesh, or has left it"), "{closed}");
    }

    #[test]
    fn without_systemd_the_agent_is_run_with_the_same_folder() {
        let person = Person {
            option: " --dir /x".into(),
            sudo: false,
        };
        let told = advice(&Folder::Member, None, &person);
        assert_eq!(told, "start it with `agent --dir /x run`");
        let person = Person {
            option: String::new(),
            sudo: true,
        };
        let told = advice(&Folder::Closed, None, &person);
        assert_eq!(told, "start it with `sudo agent run`");
    }

    #[tokio::test]
    async fn a_folder_says_whether_its_node_is_a_member_or_has_left() {
        let scratch = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(scratch.path().to_owned())).unwrap();
        assert_eq!(Folder::look(&paths).await, Folder::NoMesh);
        fs::create_dir(&paths.state).unwrap();
        fs::write(paths.state.join(LEDGER), "").unwrap();
        assert_eq!(Folder::look(&paths).await, Folder::Member);
        let disk = SystemDisk::new(paths.state.clone());
        state_folder::mark_left(&disk, "since").await.unwrap();
        let left = Folder::look(&paths).await;
        assert!(matches!(left, Folder::Left(_)), "{left:?}");
    }
}
