//! The runbooks of `ops/runbooks`, typed line by line.

use std::{collections::BTreeMap, fs, path::Path};

use innermesh_tests::{Agent, Lab, agent, agent::PATIENCE, docker::Docker, wait_for};

/// One thing that a runbook does.
#[derive(Debug, PartialEq)]
enum Step {
    /// A line that is typed on a machine, and what it answers.
    Type {
        machine: String,
        line: String,
        answers: Vec<String>,
    },
    /// These machines are gone.
    Lost(Vec<String>),
    /// The state folders of these machines are gone, with what ran on them.
    Erased(Vec<String>),
    /// A file with this text, on the machines' sticks.
    File(String, String),
    /// A machine joins by another.
    Joins(String, String),
}

/// The steps of a text: blocks of `console`, and comments in HTML; what stands in the
/// block behind a `file` is its text.
fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut typing, mut writing, mut file) = (false, false, None);
    for whole in text.lines() {
        let line = whole.trim();
        if writing && !line.starts_with("```") {
            if let Some(Step::File(_, text)) = steps.last_mut() {
                *text += &format!("{whole}\n");
            }
            continue;
        }
        if let Some(comment) = line
            .strip_prefix("<!-- ")
            .and_then(|l| l.strip_suffix(" -->"))
        {
            let (what, names) = comment.split_once(": ").expect("what happens");
            if what == "file" {
                file = Some(names.to_owned());
                continue;
            }
            let names: Vec<String> = names.split(' ').map(str::to_owned).collect();
            steps.push(match what {
                "lost" => Step::Lost(names),
                "erased" => Step::Erased(names),
                "joins" => Step::Joins(names[0].clone(), names[1].clone()),
                other => panic!("nothing is known of {other}"),
            });
        } else if line.starts_with("```") {
            typing = line == "```console";
            writing = !writing && file.is_some();
            if let Some(path) = file.take() {
                steps.push(Step::File(path, String::new()));
            }
        } else if typing && let Some((machine, line)) = line.split_once("# ") {
            steps.push(Step::Type {
                machine: machine.to_owned(),
                line: line.to_owned(),
                answers: Vec::new(),
            });
        } else if typing && let Some(Step::Type { answers, .. }) = steps.last_mut() {
            answers.push(line.to_owned());
        }
    }
    steps
}

/// The machines of a runbook, by name.
struct Walk<'lab> {
    lab: &'lab Lab,
    agents: BTreeMap<String, Agent<'lab>>,
    /// Hosts that something runs on, or has run on.
    hosts: usize,
    passphrase: String,
    typed: usize,
    /// On the first machine.
    docker: Option<Docker<'lab>>,
}

impl<'lab> Walk<'lab> {
    /// A mesh of these, made as the README makes one: the first alone is an admin.
    fn new(lab: &'lab Lab, names: &[&str]) -> Self {
        let mut first = Agent::new(&lab.hosts[0], names[0]);
        let told = first.init();
        let mut walk = Self {
            lab,
            agents: BTreeMap::from([(names[0].to_owned(), first)]),
            hosts: 1,
            passphrase: told["passphrase"].as_str().expect("one").to_owned(),
            typed: 0,
            docker: None,
        };
        for name in &names[1..] {
            walk.join(name, names[0]);
        }
        // A stick in every machine.
        for folder in ["stick", "second"] {
            fs::create_dir(walk.path(folder)).expect("a folder");
        }
        walk
    }

    fn path(&self, name: &str) -> String {
        let folder = self.lab.hosts[0].directory.join(name);
        folder.to_string_lossy().into_owned()
    }

    fn join(&mut self, name: &str, seed: &str) {
        let mut agent = Agent::new(&self.lab.hosts[self.hosts], name);
        self.hosts += 1;
        let token = self.agents[seed].invite(&[]);
        agent.join_with(&self.agents[seed], &token);
        self.agents.insert(name.to_owned(), agent);
    }

    /// Walks through `ops/runbooks/NAME.md`.
    fn walk(&mut self, name: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../ops/runbooks")
            .join(name);
        let text = fs::read_to_string(&file).expect("a runbook");
        for step in steps(&text) {
            match step {
                Step::Type {
                    machine,
                    line,
                    answers,
                } => self.type_line(&machine, &line, &answers),
                Step::Lost(names) => {
                    for name in names {
                        self.agents.get_mut(&name).expect("a machine").kill();
                    }
                }
                Step::Erased(names) => {
                    for name in names {
                        let agent = self.agents.get_mut(&name).expect("a machine");
                        agent.kill();
                        fs::remove_dir_all(agent.dir.join("state")).expect("a state folder");
                    }
                }
                Step::File(path, text) => {
                    let path = path.replace("/tmp/", &self.path(""));
                    fs::write(path, text).expect("a file");
                }
                Step::Joins(name, seed) => self.join(&name, &seed),
            }
        }
        assert!(self.typed > 0, "{name} has no line to type");
    }

    fn type_line(&mut self, machine: &str, line: &str, answers: &[String]) {
        self.typed += 1;
        let agent = self.agents.get_mut(machine).expect("a machine");
        match line {
            "systemctl stop innermesh" => return agent.stop(),
            "systemctl start innermesh" => return agent.start(),
            "systemctl restart docker" => {
                let docker = self.docker.as_mut().expect("a Docker");
                docker.stop();
                return docker.launch();
            }
            _ => {}
        }
        let agent = &self.agents[machine];
        let state = agent.dir.join("state");
        let config = agent.dir.join("etc");
        fs::create_dir_all(&config).expect("a folder");
        // First what the laboratory's own folders lie in.
        let line = line
            .replace("/tmp/", &self.path(""))
            .replace("/media/", &self.path(""))
            .replace("/etc/innermesh", &config.to_string_lossy())
            .replace("/var/lib/innermesh", &state.to_string_lossy());
        let program = agent::program().display();
        let dir = agent.dir.display();
        let mut script = format!("agent() {{ {program} --dir {dir} \"$@\"; }}\n");
        let mut line = line;
        if let Some(docker) = &self.docker {
            script += &format!(
                "docker() {{ command docker -H {} \"$@\"; }}\n",
                docker.url()
            );
            let write = format!("docker --write {}", docker.daemon_json().display());
            line = line.replace("docker --write", &write);
        }
        script += &line;
        // What others do meanwhile may take a moment.
        wait_for(&format!("{machine}# {line}"), PATIENCE, || {
            let environment = [("INNERMESH_ROOT_PASSPHRASE", self.passphrase.as_str())];
            let done = agent.host.run_with(&["sh", "-c", &script], &environment);
            let said = format!("{}{}", done.stdout, done.stderr);
            let missing = answers.iter().find(|answer| !said.contains(*answer));
            match (done.code, missing) {
                (0, None) => Ok(()),
                _ => Err(format!("{missing:?} isn't in {done}")),
            }
        });
    }
}

#[test]
fn three_ca_nodes_instead_of_one() {
    let Some(lab) = Lab::new(3) else { return };
    Walk::new(&lab, &["birch", "cedar", "maple"]).walk("promote.md");
}

#[test]
fn the_root_s_key_off_the_machines() {
    let Some(lab) = Lab::new(2) else { return };
    Walk::new(&lab, &["birch", "cedar"]).walk("root-key.md");
}

#[test]
fn most_ca_nodes_are_lost_for_good() {
    let Some(lab) = Lab::new(5) else { return };
    let mut walk = with_three_ca_nodes(&lab, &["birch", "cedar", "maple", "larch"]);
    walk.walk("recover.md");
}

/// A mesh whose first three nodes are CA nodes, and a copy of the root's key on a stick.
fn with_three_ca_nodes<'lab>(lab: &'lab Lab, names: &[&str]) -> Walk<'lab> {
    let mut walk = Walk::new(lab, names);
    for name in &names[1..3] {
        let promote =
            format!("agent ca promote {name} --root-key /var/lib/innermesh/root-recovery.pem");
        walk.type_line(names[0], &promote, &[]);
    }
    let export = "agent ca root-key export /media/stick/innermesh-root.pem";
    walk.type_line(names[0], export, &[]);
    walk
}

#[test]
fn an_admin_is_lost() {
    let Some(lab) = Lab::new(3) else { return };
    with_three_ca_nodes(&lab, &["birch", "cedar", "maple"]).walk("lost-admin.md");
}

#[test]
fn a_machine_is_replaced() {
    let Some(lab) = Lab::new(4) else { return };
    Walk::new(&lab, &["birch", "cedar", "maple"]).walk("replace.md");
}

#[test]
fn a_node_gets_another_name() {
    let Some(lab) = Lab::new(4) else { return };
    Walk::new(&lab, &["birch", "cedar", "maple"]).walk("rename.md");
}

#[test]
fn a_firewall_on_the_machine() {
    let Some(lab) = Lab::new(2) else { return };
    Walk::new(&lab, &["birch", "cedar"]).walk("firewall.md");
}

#[test]
fn a_gateway_and_the_network_beside_it() {
    let Some(lab) = Lab::new(2) else { return };
    let lan = "ip link add home type veth peer name far
               ip link set home up; ip link set far up
               ip address add 192.168.1.5/24 dev home";
    let _ = lab.hosts[1].run(&["sh", "-euc", lan]).ok();
    Walk::new(&lab, &["birch", "attic"]).walk("../docs/gateway.md");
}

#[test]
fn the_internet_by_another_node() {
    let Some(lab) = Lab::new(2) else { return };
    Walk::new(&lab, &["birch", "attic"]).walk("../docs/exit.md");
}

#[test]
fn a_small_rented_server_in_front() {
    let Some(lab) = Lab::new(3) else { return };
    Walk::new(&lab, &["birch", "vps", "attic"]).walk("../docs/public.md");
}

#[test]
fn a_mail_server_with_true_addresses() {
    let Some(lab) = Lab::new(3) else { return };
    Walk::new(&lab, &["birch", "vps", "attic"]).walk("../docs/mail.md");
}

#[test]
fn another_name_server_copies_the_zones() {
    let Some(lab) = Lab::new(2) else { return };
    Walk::new(&lab, &["birch", "cedar"]).walk("../docs/secondaries.md");
}

#[test]
fn who_may_reach_what() {
    let Some(lab) = Lab::new(3) else { return };
    Walk::new(&lab, &["birch", "cedar", "maple"]).walk("../docs/policy.md");
}

#[test]
fn names_and_services_in_docker() {
    let Some(lab) = Lab::new(1) else { return };
    let Some(docker) = Docker::start(&lab.hosts[0]) else {
        return;
    };
    docker.import("busybox", &[]);
    let server = "CMD [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]";
    docker.import("nginx", &[server]);
    let mut walk = Walk::new(&lab, &["birch"]);
    let birch = walk.agents.get_mut("birch").expect("a machine");
    let config = Docker::agent_config(birch.host);
    fs::write(birch.dir.join("config.toml"), config).expect("a file");
    birch.stop();
    birch.start();
    walk.docker = Some(docker);
    walk.walk("../docs/docker.md");
}

#[test]
fn a_new_version() {
    let Some(lab) = Lab::new(3) else { return };
    Walk::new(&lab, &["birch", "cedar", "maple"]).walk("upgrade.md");
}

#[test]
fn a_text_gives_its_lines_and_what_they_answer() {
    let text =
        "# x\n```console\na# agent status\n  yes\nb# rm x\n```\nno# line\n<!-- lost: a b -->\n";
    let typed = |machine: &str, line: &str, answers: &[&str]| Step::Type {
        machine: machine.into(),
        line: line.into(),
        answers: answers.iter().map(|a| (*a).into()).collect(),
    };
    let expected = [
        typed("a", "agent status", &["yes"]),
        typed("b", "rm x", &[]),
        Step::Lost(vec!["a".into(), "b".into()]),
    ];
    assert_eq!(steps(text), expected);
}
