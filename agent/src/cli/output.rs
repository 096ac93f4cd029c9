//! What commands print: tables and sentences for people, JSON for scripts.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::failure::{FAILED, Failure};

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

    /// The same as text that could be printed, to see whether it changed.
    pub fn render(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<String, Failure> {
        if self.json {
            return json(value);
        }
        Ok(harmless(&text()))
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
    let _ = writeln!(io::stderr(), "{}", harmless(text));
}

/// Says what somebody should do something about, beside the output.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        note(&format!("warning: {warning}"));
    }
}

/// Shows how far a long work is: one line that changes on a terminal,
/// otherwise a line for each change.
#[derive(Default)]
pub struct Progress {
    last: String,
}

impl Progress {
    /// Shows `text`, if that is news.
    pub fn show(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        self.last = text.to_string();
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r\x1b[K{}", harmless(text));
        } else {
            note(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.last.is_empty() && io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Aligned columns under a header, two spaces apart.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let header = header.map(str::to_string);
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Whether a service is healthy. One that nothing checks isn't known to be, as
/// long as its node lives.
pub fn health(healthy: bool, checked: bool) -> String {
    if healthy && !checked {
        "unchecked".into()
    } else {
        yes_no(healthy)
    }
}

/// `yes` or `no`.
pub fn yes_no(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_string()
}

/// A value, or a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_string(), |value| value.to_string())
}

/// Texts of others end up on a terminal here (a TXT record, say): without
/// control characters they can't move its cursor or set its title.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let rows = [
            ["alpha".to_string(), "yes".to_string()],
            ["b".to_string(), String::new()],
        ];
        assert_eq!(
            table(["NODE", "LIVE"], &rows),
            "NODE   LIVE\nalpha  yes\nb\n"
        );
    }

    #[test]
    fn a_text_of_somebody_else_can_not_steer_the_terminal() {
        assert_eq!(
            harmless("a\u{1b}]0;x\u{7}\nb\u{9b}"),
            "a\u{fffd}]0;x\u{fffd}\nb\u{fffd}"
        );
    }
}
