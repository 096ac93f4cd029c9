//! What a person is shown: tables that fit the terminal, times as seen from now,
//! colours where the terminal has them, and how far a long work is.

mod ago;
mod look;
mod progress;
mod screen;
mod table;
mod watch;

#[cfg(test)]
mod testing;

pub use self::{
    ago::{ago, now, until},
    look::{Look, Stream, harmless, marked},
    progress::Progress,
    screen::Screen,
    table::{Cell, Column, Table},
    watch::{Frame, Watch},
};

#[cfg(test)]
pub use self::testing::{fits, plain};
