//! What the person at the terminal sees: each step as the command that they
//! would type, what it printed, and how long it took.

use std::{
    fs,
    io::Write,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{sleep, timeout},
};

use super::{
    error::{DemoError, Tried},
    host::Host,
};

/// As `println!`, which would panic where nobody reads any more.
macro_rules! say {
    ($($what:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($what)*);
    }};
}

/// Longest time that one command may take.
const LIMIT: Duration = Duration::from_secs(90);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// A command on a host.
pub struct Step {
    words: Vec<String>,
    typed: String,
    input: Option<String>,
    file: Option<String>,
    patient: bool,
    silent: bool,
    wanted: Option<String>,
    unwanted: Option<String>,
}

impl Step {
    /// The command as a person types it, words between spaces.
    pub fn new(typed: &str) -> Self {
        Self {
            words: typed.split(' ').map(str::to_owned).collect(),
            typed: typed.to_owned(),
            input: None,
            file: None,
            patient: false,
            silent: false,
            wanted: None,
            unwanted: None,
        }
    }

    /// It reads this, which isn't shown.
    pub fn reads(mut self, input: &str) -> Self {
        self.input = Some(input.to_owned());
        self
    }

    /// What it prints goes to a file in the host's folder.
    pub fn into_file(mut self, file: &str) -> Self {
        self.typed.push_str(&format!(" > {file}"));
        self.file = Some(file.to_owned());
        self.silent()
    }

    /// Tries again until it succeeds, where others have to act first.
    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    /// What it prints isn't for a person.
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// It succeeds only when it prints `text`.
    pub fn prints(mut self, text: &str) -> Self {
        self.wanted = Some(text.to_owned());
        self
    }

    /// It succeeds only when it doesn't print `text`.
    pub fn without(mut self, text: &str) -> Self {
        self.unwanted = Some(text.to_owned());
        self
    }
}

/// Prints.
pub struct Report {
    check: bool,
    began: Instant,
}

impl Report {
    /// Tersely, for a check, or in full.
    pub fn new(check: bool) -> Self {
        Self {
            check,
            began: Instant::now(),
        }
    }

    /// A headline.
    pub fn chapter(&self, title: &str) {
        if self.check {
            say!("{title}")
        } else {
            say!("\n{title}")
        }
    }

    /// A remark.
    pub fn line(&self, text: &str) {
        say!("  {text}");
    }

    /// Runs a step and returns what it printed.
    ///
    /// # Errors
    /// [`DemoError::Step`], after its output was shown.
    pub async fn run(&self, host: &Host, step: Step) -> Result<String, DemoError> {
        let shown = format!("{}# {}", host.name, step.typed);
        if !self.check {
            say!("\n  {shown}");
        }
        let began = Instant::now();
        let (good, output) = loop {
            let (good, output) = attempt(host, &step).await?;
            if good || !step.patient || began.elapsed() > LIMIT {
                break (good, output);
            }
            if let Some(ended) = host.ended() {
                break (false, format!("{output}{ended}\n"));
            }
            sleep(PAUSE).await;
        };
        let took = format!("{:.2} s", began.elapsed().as_secs_f64());
        match (good, self.check) {
            (true, true) => say!("  ok    {took:>8}  {shown}"),
            (false, true) => say!("  FAIL  {took:>8}  {shown}"),
            _ => {}
        }
        if !good || (!self.check && !step.silent) {
            for line in output.lines() {
                say!("      {line}");
            }
        }
        if !self.check {
            say!("    {} {took}", if good { "✓" } else { "✗" });
        }
        if !good {
            return Err(DemoError::Step(shown));
        }
        if let Some(file) = &step.file {
            fs::write(host.folder().join(file), &output).tried(file)?;
        }
        Ok(output)
    }

    /// Starts a command that goes on running in the background.
    ///
    /// # Errors
    /// [`DemoError::System`].
    pub fn background(&self, host: &Host, typed: &str) -> Result<(), DemoError> {
        if self.check {
            say!("  ok              {}# {typed} &", host.name)
        } else {
            say!("\n  {}# {typed} &", host.name)
        }
        host.daemon(typed)
    }

    /// The end of all that went well.
    pub fn summary(&self, text: &str) {
        say!(
            "\n{text}; {:.1} s in all",
            self.began.elapsed().as_secs_f64()
        );
    }

    /// Why it ended, with the ends of the logs.
    pub fn failure(&self, error: &DemoError, hosts: &[Host]) {
        say!("\nagent demo: {error}");
        for host in hosts {
            let log = host.log();
            if !log.is_empty() {
                say!("\nthe end of the log on {}:\n{log}", host.name);
            }
        }
    }

    /// How to get onto the hosts.
    pub fn shells(&self, hosts: &[Host], enter: &str) {
        say!("\nThe hosts stay until Ctrl-C. A shell on each, from another terminal:\n");
        for host in hosts {
            say!(
                "  {:<6} {enter} {} {}",
                host.name,
                host.pid,
                host.shell().display()
            );
        }
        say!("\nThere, `agent status` and all other commands speak to that host's agent.");
    }
}

/// Runs a command to its end, which may read `input`.
async fn run(command: &mut Command, input: Option<&str>) -> std::io::Result<Output> {
    let Some(input) = input else {
        return command.output().await;
    };
    command.stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    child.wait_with_output().await
}

/// Whether it went well, and what it printed.
async fn attempt(host: &Host, step: &Step) -> Result<(bool, String), DemoError> {
    let mut command = host.command(&step.words);
    let Ok(output) = timeout(LIMIT, run(&mut command, step.input.as_deref())).await else {
        return Ok((false, format!("no end within {} s", LIMIT.as_secs())));
    };
    let Output {
        status,
        stdout,
        stderr,
    } = output.tried(&step.typed)?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        return Ok((false, format!("{stdout}{stderr}({status})\n")));
    }
    if let Some(wanted) = step.wanted.as_ref().filter(|text| !stdout.contains(*text)) {
        return Ok((false, format!("{stdout}(expected: {wanted})\n")));
    }
    if let Some(unwanted) = step.unwanted.as_ref().filter(|text| stdout.contains(*text)) {
        return Ok((false, format!("{stdout}(not expected: {unwanted})\n")));
    }
    Ok((true, stdout))
}
