//! What commands print: tables and sentences for people, JSON for scripts.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::{
    failure::{FAILED, Failure},
    show::{Cell, Look, Screen, Stream, harmless, marked},
};

/// `-v`, for the commands that show lists.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Detail {
    /// Show each entry in full, with exact times.
    #[arg(long, short)]
    verbose: bool,
}

impl Detail {
    /// What is drawn, as text that could be printed.
    pub fn draw(self, draw: impl FnOnce(&mut Screen)) -> String {
        let mut screen = Screen::new(Look::of(Stream::Out, self.verbose));
        draw(&mut screen);
        screen.into_text()
    }
}

/// `--json`, for the commands that have output.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Output {
    /// Print JSON, with field names that don't change.
    #[arg(long)]
    pub(super) json: bool,
}

impl Output {
    /// Whether a script reads it.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints `value` as JSON, or what `text` makes of it.
    pub fn print(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return raw(&json(value)?);
        }
        raw(&harmless(&text()))
    }

    /// Prints `value` as JSON, or what `draw` makes of it.
    pub fn show(
        self,
        detail: Detail,
        value: &impl Serialize,
        draw: impl FnOnce(&mut Screen),
    ) -> Result<(), Failure> {
        raw(&self.render(detail, value, draw)?)
    }

    /// The same as text that could be printed.
    pub fn render(
        self,
        detail: Detail,
        value: &impl Serialize,
        draw: impl FnOnce(&mut Screen),
    ) -> Result<String, Failure> {
        if self.json {
            return json(value);
        }
        Ok(detail.draw(draw))
    }
}

/// On a terminal for a person's eyes, otherwise one line.
fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = if io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    text.map(|text| text + "\n").map_err(Failure::failed)
}

/// Prints to stdout as it is. Nobody reading any more ends the command
/// without a word, as in `agent status | head -1`.
pub fn raw(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent(FAILED)),
        Err(e) => Err(Failure::failed(format!("stdout can't be written: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// Says something beside the output.
pub fn note(text: &str) {
    // With nobody to read it there is nobody to tell so.
    let look = Look::of(Stream::Err, false);
    let _ = writeln!(io::stderr(), "{}", marked(text, look));
}

/// Says what somebody should do something about, beside the output.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        note(&format!("warning: {warning}"));
    }
}

/// Whether a service is healthy. One that nothing checks isn't known to be, as
/// long as its node lives.
pub fn health(healthy: bool, checked: bool) -> Cell {
    match (healthy, checked) {
        (true, false) => Cell::care("unchecked"),
        (flag, _) => well(flag),
    }
}

/// `yes`, as it should be, or `no`.
pub fn well(flag: bool) -> Cell {
    if flag {
        Cell::good("yes")
    } else {
        Cell::bad("no")
    }
}

/// `yes` or `no`.
pub fn yes_no(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_string()
}
