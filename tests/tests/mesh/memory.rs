//! What is in an agent's memory, its keys among it, is written to no core file.

use std::{fs, os::unix::process::ExitStatusExt};

use innermesh_tests::{Agent, Host, Lab, Process, agent::PATIENCE, skip, wait::ensure, wait_for};
use nix::sys::signal::Signal;

/// Ends a process as a fault in it would; whether the kernel wrote its memory to
/// a core file. Limits of the shell or the unit don't keep it from that.
fn dumps_core(host: &Host, process: &mut Process) -> bool {
    let pid = process.id().to_string();
    let limits = ["prlimit", "--pid", &pid, "--core=unlimited:unlimited"];
    let _ = host.run(&limits).ok();
    process.signal(Signal::SIGABRT);
    let status = process.wait(PATIENCE);
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{status}");
    status.core_dumped()
}

#[test]
fn an_agent_that_a_fault_ends_leaves_no_core_file() {
    let Some(lab) = Lab::new(1) else { return };
    let host = &lab.hosts[0];
    // Another process does, on the same machine.
    let folder = host.directory.join("cores");
    fs::create_dir(&folder).expect("a folder of the laboratory");
    let script = format!("cd '{}' && exec sleep 600", folder.display());
    let mut other = host.start("sleep", &["sh", "-c", &script], &[]);
    let name = format!("/proc/{}/comm", other.id());
    wait_for("the other process", PATIENCE, || {
        let name = fs::read_to_string(&name).unwrap_or_default();
        ensure(name.trim() == "sleep", &name)
    });
    if !dumps_core(host, &mut other) {
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern");
        skip(format!(
            "no core file of any process is written here: {pattern:?}"
        ));
        return;
    }

    let mut alpha = Agent::new(host, "alpha");
    let _ = alpha.init();
    let process = alpha.process().expect("it runs");
    assert!(!dumps_core(host, process));
}
