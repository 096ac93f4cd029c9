//! A configuration as a QR code, for a terminal and as a picture.

use qrcode::{Color, EcLevel, QrCode};

use super::png;

/// Light modules around a code (ISO 18004 §6.3.8), and the fewest with which
/// phones still find it.
const MARGIN: usize = 4;
const LEAST_MARGIN: usize = 2;
/// Pixels of a module.
const SCALE: u32 = 8;
/// Black on bright white, whatever the terminal's own colours are.
const INK: &str = "\x1b[30;107m";
const PLAIN: &str = "\x1b[0m";

/// A code.
pub struct Code {
    modules: Vec<Color>,
    side: usize,
}

impl Code {
    /// Of a text; `None` where it is too long for one. The least correction, so
    /// that it is small: a screen has no scratches.
    pub fn of(text: &str) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
        Some(Self {
            side: code.width(),
            modules: code.into_colors(),
        })
    }

    /// As lines of at most `columns` characters, two modules in the height of one;
    /// `None` where that is too narrow.
    pub fn lines(&self, columns: usize) -> Option<String> {
        let room = columns.checked_sub(self.side)? / 2;
        let margin = room.min(MARGIN);
        if margin < LEAST_MARGIN {
            return None;
        }
        let side = self.side + 2 * margin;
        let mut out = String::new();
        for row in (0..side).step_by(2) {
            out.push_str(INK);
            for column in 0..side {
                let upper = self.is_dark(column, row, margin);
                let lower = self.is_dark(column, row + 1, margin);
                out.push(match (upper, lower) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            out.push_str(PLAIN);
            out.push('\n');
        }
        Some(out)
    }

    /// As PNG.
    pub fn png(&self) -> Vec<u8> {
        let side = u32::try_from(self.side + 2 * MARGIN).unwrap_or(u32::MAX);
        png::encode(side, SCALE, |column, row| {
            self.is_dark(column as usize, row as usize, MARGIN)
        })
    }

    fn is_dark(&self, column: usize, row: usize, margin: usize) -> bool {
        let inside = |at: usize| at.checked_sub(margin).filter(|at| *at < self.side);
        let (Some(column), Some(row)) = (inside(column), inside(row)) else {
            return false;
        };
        self.modules.get(row * self.side + column) == Some(&Color::Dark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as a usual configuration.
    const USUAL: usize = 422;

    fn widths(lines: &str) -> Vec<usize> {
        let bare = lines.replace(INK, "").replace(PLAIN, "");
        bare.lines().map(|line| line.chars().count()).collect()
    }

    #[test]
    fn a_usual_configuration_fits_eighty_columns_with_its_margin() {
        let code = Code::of(&"k".repeat(USUAL)).unwrap();
        let lines = code.lines(80).unwrap();
        let widths = widths(&lines);
        assert_eq!(widths.len(), 39);
        assert!(widths.iter().all(|width| *width == 77), "{widths:?}");
        assert!(lines.lines().all(|line| line.ends_with(PLAIN)));
    }

    #[test]
    fn a_longer_one_has_less_margin_and_one_that_is_too_long_is_no_code_there() {
        let code = |bytes: usize| Code::of(&"k".repeat(bytes)).unwrap();
        // Version 14 has 73 modules.
        assert!(widths(&code(458).lines(80).unwrap()).contains(&79));
        assert!(code(459).lines(80).is_none());
        assert!(code(459).lines(100).is_some());
        assert!(code(USUAL).lines(72).is_none() && code(USUAL).lines(10).is_none());
        assert!(Code::of(&"k".repeat(4000)).is_none());
    }

    #[test]
    fn both_ways_show_the_same_modules() {
        let code = Code::of("[Interface]").unwrap();
        let lines = code.lines(80).unwrap();
        let bare = lines.replace(INK, "").replace(PLAIN, "");
        let rows: Vec<Vec<char>> = bare.lines().map(|line| line.chars().collect()).collect();
        for row in 0..code.side + 2 * MARGIN {
            let line = &rows[row / 2];
            assert_eq!(line.len(), code.side + 2 * MARGIN);
            for (column, shown) in line.iter().copied().enumerate() {
                let dark = if row % 2 == 0 {
                    shown == '█' || shown == '▀'
                } else {
                    shown == '█' || shown == '▄'
                };
                assert_eq!(dark, code.is_dark(column, row, MARGIN), "{column} {row}");
            }
        }
        assert!(code.png().len() > 500);
    }
}
