//! Asking before what can't be undone.

use super::{failure::Failure, terminal::Terminal};

/// `--yes`, for commands that ask first.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Consent {
    /// Don't ask whether to go on.
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Has the person at the terminal agree to what will happen; `command` is
    /// what was typed, without `--yes`.
    ///
    /// # Errors
    /// When nobody agrees, or nobody is there to be asked.
    pub fn ask(self, what: &str, command: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        let Some(mut terminal) = Terminal::open() else {
            return Err(Failure::usage(format!(
                "{what} There is no terminal to ask on; if that is right, run `{command} --yes`"
            )));
        };
        if terminal.confirm(&format!("{what} Go on?"))? {
            Ok(())
        } else {
            Err(Failure::failed("nothing was changed"))
        }
    }
}
