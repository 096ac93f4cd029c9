//! Tables: sorted, aligned under a header, and within the terminal's width.

use std::{cmp::Ordering, fmt};

use comfy_table::{Attribute, Color, ColumnConstraint, ContentArrangement};

use super::look::{Look, harmless};

/// Between two columns.
const GAP: u16 = 2;
/// A column that may be broken is left this much room before those that may not
/// are broken too.
const ROOM: u16 = 8;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    /// Not broken into two lines, as it may be copied, while there is room.
    whole: bool,
    /// Only shown with `--verbose`.
    extra: bool,
}

impl Column {
    /// One whose texts may be broken into several lines.
    pub const fn new(title: &'static str) -> Self {
        Self {
            title,
            whole: false,
            extra: false,
        }
    }

    /// One whose texts stay in one piece while there is room.
    pub const fn whole(title: &'static str) -> Self {
        Self {
            whole: true,
            ..Self::new(title)
        }
    }

    /// One that `--verbose` adds.
    pub const fn extra(title: &'static str) -> Self {
        Self {
            extra: true,
            ..Self::new(title)
        }
    }
}

/// What a cell says of what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Plain,
    Good,
    Care,
    Bad,
}

/// One text of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    short: String,
    full: Option<String>,
    mood: Mood,
}

impl Cell {
    /// As it is.
    pub fn new(text: impl ToString) -> Self {
        Self {
            short: text.to_string(),
            full: None,
            mood: Mood::Plain,
        }
    }

    /// As things should be.
    pub fn good(text: impl ToString) -> Self {
        Self::new(text).in_mood(Mood::Good)
    }

    /// As somebody should look at.
    pub fn care(text: impl ToString) -> Self {
        Self::new(text).in_mood(Mood::Care)
    }

    /// As things shouldn't be.
    pub fn bad(text: impl ToString) -> Self {
        Self::new(text).in_mood(Mood::Bad)
    }

    /// What `--verbose` shows in its place.
    #[must_use]
    pub fn in_full(mut self, text: impl ToString) -> Self {
        self.full = Some(text.to_string());
        self
    }

    /// A value, or a dash.
    pub fn or_dash(value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => Self::new(value),
            None => Self::new("-"),
        }
    }

    fn in_mood(mut self, mood: Mood) -> Self {
        self.mood = mood;
        self
    }

    fn text(&self, verbose: bool) -> String {
        let text = match &self.full {
            Some(full) if verbose => full,
            _ => &self.short,
        };
        harmless(text).replace('\n', " ")
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(false))
    }
}

/// Rows below a header.
#[derive(Debug, Clone)]
pub struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    pub fn new(columns: [Column; N]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    pub fn add(&mut self, row: [Cell; N]) {
        self.rows.push(row);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// By the first column, then the second, and so on, numbers by their value.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.rows.sort_by(|a, b| {
            let pairs = a.iter().zip(b);
            let mut orders = pairs.map(|(a, b)| natural(&a.short, &b.short));
            orders
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        });
        self
    }

    /// The whole of it, each line with its end.
    pub fn text(&self, look: Look) -> String {
        if look.verbose {
            return self.in_full(look);
        }
        let shown: Vec<usize> = (0..N).filter(|at| !self.columns[*at].extra).collect();
        let mut grid = grid(look);
        let titles = shown.iter().map(|at| self.columns[*at].title);
        grid.set_header(
            titles.map(|title| comfy_table::Cell::new(title).add_attribute(Attribute::Bold)),
        );
        for row in &self.rows {
            grid.add_row(shown.iter().map(|at| styled(&row[*at], false)));
        }
        let whole = |column: usize| shown.get(column).is_some_and(|at| self.columns[*at].whole);
        fit(&mut grid, look, whole)
    }

    /// A block of lines for each row, one field a line.
    fn in_full(&self, look: Look) -> String {
        let mut out = String::new();
        for row in &self.rows {
            let mut grid = grid(look);
            for (column, cell) in self.columns.iter().zip(row) {
                let title = comfy_table::Cell::new(column.title).add_attribute(Attribute::Bold);
                grid.add_row([title, styled(cell, true)]);
            }
            // What is shown in full may be copied: only the terminal breaks it.
            grid.set_content_arrangement(ContentArrangement::Disabled);
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&fit(&mut grid, look, |_| false));
        }
        out
    }
}

/// Lines of a name and what there is to say of it.
pub fn fields(rows: &[(&str, String)], look: Look) -> String {
    let mut grid = grid(look);
    for (name, text) in rows {
        let name = comfy_table::Cell::new(name).add_attribute(Attribute::Bold);
        grid.add_row([name, comfy_table::Cell::new(harmless(text))]);
    }
    fit(&mut grid, look, |column| column == 0)
}

/// A text whose lines are broken between words where the terminal ends.
pub fn paragraph(text: &str, look: Look) -> String {
    let mut grid = grid(look);
    grid.add_row([comfy_table::Cell::new(harmless(text))]);
    fit(&mut grid, look, |_| false)
}

fn grid(look: Look) -> comfy_table::Table {
    let mut grid = comfy_table::Table::new();
    grid.load_style(comfy_table::presets::NOTHING)
        .force_no_tty();
    grid.style_text_only();
    if look.colour {
        grid.enforce_styling();
    }
    match look.width {
        Some(width) => grid
            .set_width(width)
            .set_content_arrangement(ContentArrangement::Dynamic),
        None => grid.set_content_arrangement(ContentArrangement::Disabled),
    };
    grid
}

fn styled(cell: &Cell, verbose: bool) -> comfy_table::Cell {
    let shown = comfy_table::Cell::new(cell.text(verbose));
    match cell.mood {
        Mood::Plain => shown,
        // The darker ones can be read on white too.
        Mood::Good => shown.fg(Color::DarkGreen),
        Mood::Care => shown.fg(Color::DarkYellow),
        Mood::Bad => shown.fg(Color::DarkRed),
    }
}

/// Lays it out: columns that are `whole` stay so while the others have room.
fn fit(grid: &mut comfy_table::Table, look: Look, whole: impl Fn(usize) -> bool) -> String {
    let widths = grid.column_max_content_widths();
    let last = widths.len().saturating_sub(1);
    for (at, column) in grid.column_iter_mut().enumerate() {
        column.set_padding((0, if at == last { 0 } else { GAP }));
    }
    let columns = widths.iter().enumerate();
    let needed: u32 = columns
        .map(|(at, width)| {
            let least = if whole(at) { *width } else { ROOM.min(*width) };
            u32::from(least) + if at == last { 0 } else { u32::from(GAP) }
        })
        .sum();
    if look.width.is_some_and(|width| needed <= u32::from(width)) {
        for (at, column) in grid.column_iter_mut().enumerate() {
            if whole(at) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    grid.trim_fmt() + "\n"
}

/// As people sort: `node-2` before `node-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) else {
            return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
        };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (x, left_rest) = number(left);
            let (y, right_rest) = number(right);
            let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
            if order.is_ne() {
                return order;
            }
            (left, right) = (left_rest, right_rest);
        } else {
            if x != y {
                return x.cmp(&y);
            }
            (left, right) = (&left[x.len_utf8()..], &right[y.len_utf8()..]);
        }
    }
}

/// The digits at the beginning, without zeros before them, and what follows.
fn number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    (digits.trim_start_matches('0'), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::whole("NODE"),
        Column::new("LIVE"),
        Column::extra("ID"),
    ];

    fn table(rows: &[[&str; 3]]) -> Table<3> {
        let mut table = Table::new(COLUMNS);
        for row in rows {
            table.add(row.map(Cell::new));
        }
        table.sorted()
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let table = table(&[["b", "", "1"], ["alpha", "yes", "2"]]);
        assert_eq!(table.text(Look::plain()), "NODE   LIVE\nalpha  yes\nb\n");
    }

    #[test]
    fn rows_are_sorted_as_people_sort() {
        let table = table(&[
            ["node-10", "", ""],
            ["node-2", "b", ""],
            ["node-02", "a", ""],
            ["node", "", ""],
            ["node-2", "a", ""],
            ["2", "", ""],
        ]);
        let first: Vec<&str> = table.rows.iter().map(|row| row[0].short.as_str()).collect();
        assert_eq!(
            first,
            ["2", "node", "node-02", "node-2", "node-2", "node-10"]
        );
        assert_eq!(table.rows[3][1].short, "a");
    }

    #[test]
    fn verbose_shows_each_entry_in_full() {
        let mut table = Table::new(COLUMNS);
        table.add([
            Cell::new("alpha"),
            Cell::new("in 2d").in_full("X"),
            Cell::new("7"),
        ]);
        table.add([Cell::new("beta"), Cell::new("-"), Cell::new("8")]);
        let look = Look {
            verbose: true,
            ..Look::plain()
        };
        assert_eq!(
            table.text(look),
            "NODE  alpha\nLIVE  X\nID    7\n\nNODE  beta\nLIVE  -\nID    8\n"
        );
    }

    #[test]
    fn a_column_that_may_be_copied_is_broken_last() {
        let long = "kubernetes-ingress-in-the-garage";
        let words = "one two three four five six seven eight nine ten eleven";
        let look = |width| Look {
            width: Some(width),
            ..Look::plain()
        };
        let table = table(&[[long, words, ""]]);
        let text = table.text(look(60));
        assert!(text.contains(long), "{text}");
        for width in [60, 41, 30, 20] {
            let text = table.text(look(width));
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(usize::from(width)), "{width}: {text}");
            let joined: String = text.split_whitespace().collect();
            assert!(joined.contains("eleven"), "{text}");
        }
    }

    #[test]
    fn a_cell_of_somebody_else_stays_in_its_line() {
        let table = table(&[["a\nb\u{1b}[31m", "yes", ""]]);
        assert_eq!(
            table.text(Look::plain()),
            "NODE      LIVE\na b\u{fffd}[31m  yes\n"
        );
    }

    #[test]
    fn only_a_terminal_gets_escapes() {
        let mut table = Table::new([Column::new("LIVE")]);
        table.add([Cell::good("yes")]);
        assert_eq!(table.text(Look::plain()), "LIVE\nyes\n");
        let look = Look {
            width: Some(80),
            colour: true,
            verbose: false,
        };
        let text = table.text(look);
        assert!(text.contains("\x1b[1mLIVE\x1b["), "{text:?}");
    }
}
