//! `--watch`: a list that is shown again whenever it changes.

use std::{io::IsTerminal, time::Duration};

use crate::cli::{
    failure::Failure,
    output::{self, Output},
};

/// How often a watched list is looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// `--watch`, for what changes by itself.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Watch {
    /// Keep running and redraw on change.
    #[arg(long, short = 'w')]
    watch: bool,
}

/// What is seen at one look.
pub struct Frame {
    /// What is shown.
    pub shown: String,
    /// Shown again once this is another, as times go on by themselves.
    pub news: String,
    /// What is said beside it.
    pub warnings: Vec<String>,
}

impl Watch {
    /// Shows what `look` sees, once or for ever.
    pub async fn run(
        self,
        output: Output,
        mut look: impl AsyncFnMut() -> Result<Frame, Failure>,
    ) -> Result<(), Failure> {
        let redraws = self.watch && std::io::stdout().is_terminal() && !output.is_json();
        let mut last: Option<String> = None;
        loop {
            let frame = look().await?;
            if last.as_ref() != Some(&frame.news) {
                let clear = if redraws { "\x1b[2J\x1b[H" } else { "" };
                output::raw(&format!("{clear}{}", frame.shown))?;
                if !output.is_json() {
                    output::warn(&frame.warnings);
                }
                last = Some(frame.news);
            }
            if !self.watch {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
