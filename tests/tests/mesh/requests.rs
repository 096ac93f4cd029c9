//! Joining without a token: by a code that the machine shows and an admin
//! types.

use innermesh_tests::{Agent, Lab, Process, agent::PATIENCE, wait::ensure, wait_for};
use serde_json::Value;

/// A machine that asks to be let in.
struct Asking {
    process: Process,
    /// Where its own words begin in the log.
    from: usize,
}

impl Asking {
    /// Asks, and waits for nothing more.
    fn start(agent: &Agent, seed: &Agent) -> Self {
        let (address, name) = (seed.address(), agent.name.clone());
        let log = agent.host.directory.join(format!("{name}-cli.log"));
        let from = std::fs::read(log).map_or(0, |log| log.len());
        let join = ["join", &address, "--name", &name, "--no-start"];
        let asking = Self {
            process: agent.start_cli(&join),
            from,
        };
        wait_for("the request to be taken", PATIENCE, || {
            let told = asking.told();
            ensure(told.contains("agent requests"), &told)
        });
        asking
    }

    fn told(&self) -> String {
        self.process.log()[self.from..].to_owned()
    }

    /// The code that the machine shows by now.
    fn code(&self) -> String {
        wait_for("a code", PATIENCE, || {
            let told = self.told();
            let word = told
                .split_whitespace()
                .find(|word| word.len() == 17 && word.matches('-').count() == 3);
            word.map(str::to_owned).ok_or(told)
        })
    }

    fn comes_in(mut self) {
        let status = self.process.wait(PATIENCE);
        assert!(status.success(), "{}", self.told());
    }

    fn ends(mut self, phrase: &str) {
        let status = self.process.wait(PATIENCE);
        assert!(!status.success(), "{}", self.told());
        assert!(self.told().contains(phrase), "{}", self.told());
    }
}

fn requests(admin: &Agent) -> Vec<Value> {
    let told = admin.json(&["requests"]);
    told.as_array().expect("a list").clone()
}

#[test]
fn a_machine_is_let_in_by_the_code_that_it_shows_through_any_member() {
    let Some(lab) = Lab::new(3) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.agents();
    let _ = alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    beta.wait_nodes(2);
    assert!(requests(&alpha).is_empty());
    beta.refused(&["requests"], "not an admin");
    alpha.refused(&["approve", "abcd-efgh-ijkm"], "agent requests");

    // The member that it asks is no admin, and only passes on.
    let asking = Asking::start(&gamma, &beta);
    assert!(!asking.told().contains("code is"), "nobody has asked yet");
    let rows = requests(&alpha);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["name"], "gamma");
    assert_eq!(rows[0]["via"], "beta");
    let address = rows[0]["address"].as_str().expect("an address");
    assert!(
        address.contains(&lab.hosts[2].ipv4.to_string()),
        "{address}"
    );
    let typed = asking.code().to_uppercase();
    // What is no code is no attempt.
    alpha.refused(&["approve", "abcd"], "14 letters");
    let told = wait_for("the approval", PATIENCE, || {
        alpha
            .cli(&["approve", &typed, "--role", "admin", "--json"])
            .result()
    });
    assert!(told.contains("\"gamma\""), "{told}");
    asking.comes_in();
    gamma.start();
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_nodes(3);
    }
    let status = alpha.status();
    let nodes = status["nodes"].as_array().expect("nodes");
    let row = nodes.iter().find(|node| node["name"] == "gamma");
    assert_eq!(row.expect("gamma")["roles"], serde_json::json!(["admin"]));
    assert!(requests(&alpha).is_empty());
}

#[test]
fn a_code_that_is_typed_wrong_makes_the_request_void_and_both_sides_are_told() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    let _ = alpha.init();

    let asking = Asking::start(&beta, &alpha);
    assert_eq!(requests(&alpha).len(), 1);
    let right = asking.code();
    // What is mistyped is no attempt.
    let mut mistyped = right.clone();
    let other = if right.starts_with('a') { "b" } else { "a" };
    mistyped.replace_range(..1, other);
    alpha.refused(&["approve", &mistyped], "the code is mistyped");
    // What an older machine shows says nothing of that.
    let wrong: String = right[..14].chars().rev().collect();
    wait_for("the code to be looked at", PATIENCE, || {
        let done = alpha.cli(&["approve", &wrong]);
        ensure(done.stderr.contains("one attempt"), &done.stderr)
    });
    asking.ends("void");
    alpha.refused(&["approve", &right], "agent requests");
    assert_eq!(alpha.status()["nodes"].as_array().map(Vec::len), Some(1));

    // An admin may also not want it.
    let asking = Asking::start(&beta, &alpha);
    assert_eq!(requests(&alpha).len(), 1);
    let _ = asking.code();
    alpha.refused(&["deny", "somebody"], "no machine asks");
    let _ = alpha.cli(&["deny", "beta"]).ok();
    asking.ends("denied");

    // A name that is taken needn't wait for anybody.
    let taken = ["join", &alpha.address(), "--name", "alpha", "--no-start"];
    beta.refused(&taken, "taken by the node alpha");
    beta.refused(&taken, "agent evict alpha");

    // And after all that it is let in.
    let asking = Asking::start(&beta, &alpha);
    assert_eq!(requests(&alpha).len(), 1);
    let typed = asking.code();
    let _ = wait_for("the approval", PATIENCE, || {
        alpha.cli(&["approve", &typed]).result()
    });
    asking.comes_in();
    beta.start();
    alpha.wait_nodes(2);
}
