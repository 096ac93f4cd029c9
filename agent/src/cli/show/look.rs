//! How a stream shows things: its width and whether it has colours.

use std::{
    env,
    io::{self, IsTerminal},
};

/// Where the terminal doesn't say how wide it is.
const WIDTH: u16 = 80;
/// Nothing is laid out for less.
const LEAST_WIDTH: u16 = 20;

/// Where something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// How it is shown there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Columns of the terminal; none in a pipe, where each row is one line for
    /// programs such as grep.
    pub width: Option<u16>,
    /// Whether colours are used.
    pub colour: bool,
    /// Whether each entry is shown in full, one field a line.
    pub verbose: bool,
}

impl Look {
    /// That of a stream of this process.
    pub fn of(stream: Stream, verbose: bool) -> Self {
        let terminal = match stream {
            Stream::Out => io::stdout().is_terminal(),
            Stream::Err => io::stderr().is_terminal(),
        };
        let mut look = Self::from(terminal, |name| env::var(name).ok(), terminal_width);
        look.verbose = verbose;
        look
    }

    /// NO_COLOR is that of <https://no-color.org>: any text but none.
    fn from(
        terminal: bool,
        var: impl Fn(&str) -> Option<String>,
        width: impl Fn() -> Option<u16>,
    ) -> Self {
        if !terminal {
            return Self::plain();
        }
        let columns = var("COLUMNS").and_then(|columns| columns.parse().ok());
        let columns = columns.filter(|columns| *columns > 0).or_else(width);
        let unwanted = var("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: Some(columns.unwrap_or(WIDTH).max(LEAST_WIDTH)),
            colour: !unwanted && var("TERM").is_some_and(|term| term != "dumb"),
            verbose: false,
        }
    }

    /// Whole lines without colours, as in a pipe.
    pub fn plain() -> Self {
        Self {
            width: None,
            colour: false,
            verbose: false,
        }
    }
}

fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width().filter(|width| *width > 0)
}

/// Texts of others end up on a terminal here (a TXT record, say): without
/// control characters they can't move its cursor or set its title.
pub fn harmless(text: &str) -> String {
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

/// A line without control characters, whose first word stands out where it is
/// `error:` or `warning:`.
pub fn marked(text: &str, look: Look) -> String {
    const MARKS: [(&str, &str); 2] = [("error:", "31"), ("warning:", "33")];
    let text = harmless(text);
    if !look.colour {
        return text;
    }
    for (mark, colour) in MARKS {
        if let Some(rest) = text.strip_prefix(mark) {
            return format!("\x1b[1;{colour}m{mark}\x1b[0m{rest}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_have_them_and_people_who_want_them() {
        let look = |terminal, variables: &[(&str, &str)]| {
            let var = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let look = Look::from(terminal, var, || Some(120));
            (look.colour, look.width)
        };
        let term = ("TERM", "xterm");
        assert_eq!(look(true, &[term]), (true, Some(120)));
        assert_eq!(look(true, &[term, ("NO_COLOR", "")]), (true, Some(120)));
        assert_eq!(look(true, &[term, ("NO_COLOR", "1")]), (false, Some(120)));
        assert_eq!(look(true, &[("TERM", "dumb")]), (false, Some(120)));
        assert_eq!(look(true, &[]), (false, Some(120)));
        assert_eq!(look(true, &[term, ("COLUMNS", "60")]), (true, Some(60)));
        assert_eq!(look(true, &[term, ("COLUMNS", "0")]), (true, Some(120)));
        assert_eq!(look(true, &[("COLUMNS", "1")]), (false, Some(LEAST_WIDTH)));
        assert_eq!(look(false, &[term, ("COLUMNS", "60")]), (false, None));
        assert_eq!(Look::from(true, |_| None, || None).width, Some(WIDTH));
    }

    #[test]
    fn a_text_of_somebody_else_can_not_steer_the_terminal() {
        assert_eq!(
            harmless("a\u{1b}]0;x\u{7}\nb\u{9b}"),
            "a\u{fffd}]0;x\u{fffd}\nb\u{fffd}"
        );
    }

    #[test]
    fn what_is_wrong_stands_out_and_what_others_wrote_does_not() {
        let coloured = Look {
            colour: true,
            ..Look::plain()
        };
        let told = marked("error: a \u{1b}[31m", coloured);
        assert_eq!(told, "\x1b[1;31merror:\x1b[0m a \u{fffd}[31m");
        assert_eq!(marked("an error: a", coloured), "an error: a");
        assert_eq!(marked("warning: a", Look::plain()), "warning: a");
    }
}
