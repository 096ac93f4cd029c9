//! The install page of an agent, fetched as a client does, and programs that
//! judge what it hands out.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Agent, Finished, agent::DOMAIN};

/// Where agents serve it.
pub const PORT: u16 = 7480;

/// Fetches a path of an agent's page by the page's name, from the agent's host.
///
/// # Panics
/// When the name doesn't lead to the agent itself.
#[must_use]
pub fn curl(agent: &Agent, path: &str, more: &[&str]) -> Finished {
    let dns = agent.dns();
    let answer = agent.dig(&[&format!("ca.{DOMAIN}"), "A"]).ok();
    let address = answer.trim();
    assert_eq!(address, dns.ip().to_string(), "ca is the agent itself");
    let to = format!("ca.{DOMAIN}:{PORT}:{address}");
    let url = format!("http://ca.{DOMAIN}:{PORT}{path}");
    let words = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--path-as-is",
        "--resolve",
        &to,
        &url,
    ];
    agent.host.run(&[&words, more].concat())
}

/// Downloads a path to a file of the agent's host.
///
/// # Errors
/// What curl said.
pub fn download(agent: &Agent, path: &str) -> Result<PathBuf, String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let file = agent.host.directory.join(format!("got-{name}"));
    let _ = fs::remove_file(&file);
    let out = file.to_string_lossy().into_owned();
    let fetched = curl(agent, path, &["--fail", "--output", &out]).result();
    fetched.map(|_| file)
}

/// Runs a program on this machine, and gives what it printed and whether it
/// succeeded.
///
/// # Panics
/// When there is no `timeout`.
#[must_use]
pub fn tool(words: &[&str]) -> (bool, String) {
    let output = Command::new("timeout")
        .arg("60")
        .args(words)
        .output()
        .expect("timeout can be run");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// As [`tool`], for a program that has to succeed.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn tool_ok(words: &[&str]) -> String {
    let (done, text) = tool(words);
    assert!(done, "{words:?}: {text}");
    text
}

/// A path as text.
///
/// # Panics
/// When it isn't UTF-8.
#[must_use]
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the laboratory")
}
