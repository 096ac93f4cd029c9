//! What a command shows, piece by piece.

use super::{
    ago::now,
    look::{Look, harmless},
    table::{self, Table},
};
use crate::{ca::fingerprint, host::UnixTime};

/// Sixteen bytes of a fingerprint, with a colon behind each.
const HALF: usize = 48;

/// Collects texts and tables. Control characters of others are taken out of all
/// of it.
pub struct Screen {
    look: Look,
    now: UnixTime,
    text: String,
}

impl Screen {
    pub fn new(look: Look) -> Self {
        Self::at(look, now())
    }

    /// One that shows times as seen from `now`.
    pub fn at(look: Look, now: UnixTime) -> Self {
        Self {
            look,
            now,
            text: String::new(),
        }
    }

    /// What times are seen from.
    pub fn now(&self) -> UnixTime {
        self.now
    }

    /// A fingerprint in hexadecimal as browsers show it, on a terminal in two lines
    /// of whole bytes.
    pub fn fingerprint(&self, hex: &str) -> String {
        let shown = fingerprint(hex);
        match (self.look.width, shown.split_at_checked(HALF)) {
            (Some(_), Some((first, second))) => format!("{first}\n{second}"),
            _ => shown,
        }
    }

    pub fn say(&mut self, text: &str) {
        self.text.push_str(&harmless(text));
    }

    /// A table; with an empty line before it where something stands there.
    pub fn table<const N: usize>(&mut self, table: &Table<N>) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&table.text(self.look));
    }

    /// A text whose lines are broken between words where the terminal ends.
    pub fn paragraph(&mut self, text: &str) {
        self.text.push_str(&table::paragraph(text, self.look));
    }

    /// Lines of a name and what there is to say of it.
    pub fn fields(&mut self, rows: &[(&str, String)]) {
        self.text.push_str(&table::fields(rows, self.look));
    }

    pub fn into_text(self) -> String {
        self.text
    }
}
