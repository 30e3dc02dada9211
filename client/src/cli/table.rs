//! Tables that fit the terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::sanitize;

const GAP: usize = 3;
/// A column that is shortened keeps at least so much.
const LEAST: usize = 8;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    shrinks: bool,
    right: bool,
}

impl Column {
    /// Always shown whole.
    pub const fn whole(title: &'static str) -> Self {
        Self {
            title,
            shrinks: false,
            right: false,
        }
    }

    /// Shortened when the table would be too wide.
    pub const fn text(title: &'static str) -> Self {
        Self {
            title,
            shrinks: true,
            right: false,
        }
    }

    /// A number: shown whole, on the right.
    pub const fn number(title: &'static str) -> Self {
        Self {
            title,
            shrinks: false,
            right: true,
        }
    }
}

/// Rows below a header.
#[derive(Debug)]
pub struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows.
    pub fn new(columns: &'static [Column]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell per column; control characters are made visible.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| match sanitize::text(&cell) {
            std::borrow::Cow::Borrowed(_) => cell,
            std::borrow::Cow::Owned(shown) => shown,
        });
        self.rows.push(cells.collect());
    }

    /// The table as text, at most `width` columns wide; whole without one.
    pub fn render(&self, width: Option<usize>) -> String {
        let widths = self.widths(width);
        let mut out = String::new();
        let titles: Vec<String> = self.columns.iter().map(|c| c.title.to_owned()).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, &cell_width), column) in row.iter().zip(&widths).zip(self.columns) {
                let cell = shorten(cell, cell_width);
                let fill = " ".repeat(cell_width.saturating_sub(cell.width()));
                if column.right {
                    line.push_str(&fill);
                    line.push_str(&cell);
                } else {
                    line.push_str(&cell);
                    line.push_str(&fill);
                }
                line.push_str(&" ".repeat(GAP));
            }
            let line = line.trim_end();
            out.push_str(&width.map_or(line.to_owned(), |w| shorten(line, w)));
            out.push('\n');
        }
        out
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let natural = |i: usize, column: &Column| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(i))
                .map(|cell| cell.width());
            cells.max().unwrap_or(0).max(column.title.width())
        };
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| natural(i, c))
            .collect();
        let Some(limit) = limit else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        // The widest gives way first, one column of the screen at a time: tables are small.
        while widths.iter().sum::<usize>() + gaps > limit {
            let widest = (0..widths.len())
                .filter(|&i| self.columns[i].shrinks && widths[i] > LEAST)
                .max_by_key(|&i| widths[i]);
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
        }
        widths
    }
}

/// The beginning of a text with an ellipsis, when it is wider than `width`.
pub fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        // One is left for the ellipsis.
        if used >= width {
            break;
        }
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::whole("ID"),
        Column::text("COMMAND"),
        Column::number("N"),
    ];

    fn table() -> Table {
        let mut table = Table::new(COLUMNS);
        table.row([
            "abc".into(),
            "sleep \x1b[31m1000000000000".into(),
            "7".into(),
        ]);
        table.row([
            "defghi".into(),
            "大大大大大大大大大大大大大大大".into(),
            "1234".into(),
        ]);
        table
    }

    #[test]
    fn without_a_terminal_nothing_is_shortened() {
        assert_eq!(
            table().render(None),
            "ID       COMMAND                             N\n\
             abc      sleep \\x1b[31m1000000000000         7\n\
             defghi   大大大大大大大大大大大大大大大   1234\n"
        );
    }

    #[test]
    fn every_line_fits_the_terminal() {
        for width in [0, 1, 10, 25, 30, 40, 80] {
            for line in table().render(Some(width)).lines() {
                assert!(line.width() <= width, "{width}: {line:?}");
            }
        }
        assert_eq!(
            table().render(Some(30)).lines().nth(1),
            Some("abc      sleep \\x1b[31…      7")
        );
    }
}
