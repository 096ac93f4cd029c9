//! How far a long work is.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::look::harmless;

/// How often the sign of life moves.
const TICK: Duration = Duration::from_millis(120);

/// One line with a sign of life and the time that has passed, on a terminal;
/// otherwise a line for each change.
#[derive(Default)]
pub struct Progress {
    last: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows `text`, if that is news.
    pub fn show(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        self.last = text.to_string();
        if !io::stderr().is_terminal() {
            // With nobody to read it there is nobody to tell so.
            let _ = writeln!(io::stderr(), "{}", harmless(text));
            return;
        }
        let bar = self.bar.get_or_insert_with(spinner);
        bar.set_message(harmless(text).replace('\n', " "));
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
