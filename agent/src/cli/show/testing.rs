//! What commands draw, for their tests.

use super::{look::Look, screen::Screen};
use crate::host::UnixTime;

/// As in a pipe, with times as seen from 1970.
pub fn plain(draw: impl FnOnce(&mut Screen)) -> String {
    drawn(Look::plain(), draw)
}

/// As on a terminal of 80 columns; in each width its lines stay within it.
pub fn fits(draw: impl Fn(&mut Screen)) -> String {
    let of = |width| {
        let look = Look {
            width: Some(width),
            ..Look::plain()
        };
        let text = drawn(look, &draw);
        for line in text.lines() {
            let columns = line.chars().count();
            assert!(
                columns <= usize::from(width),
                "{columns} of {width}:\n{text}"
            );
        }
        text
    };
    for width in [40, 60, 120] {
        let _ = of(width);
    }
    of(80)
}

fn drawn(look: Look, draw: impl FnOnce(&mut Screen)) -> String {
    let mut screen = Screen::at(look, UnixTime::from_ms(0));
    draw(&mut screen);
    screen.into_text()
}
