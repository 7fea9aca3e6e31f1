//! Aligned text for people.

use std::fmt::Write as _;
use std::time::Duration;

use crate::plain::plain_line;

/// Between two columns.
const GAP: &str = "  ";

/// Rows under a head, each column as wide as its widest cell.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with only its head.
    pub(super) fn new(head: &[&str]) -> Self {
        Self {
            rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// A table of names and values, without a head.
    pub(super) fn of_fields() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| plain_line(&cell));
        self.rows.push(cells.collect());
    }

    /// Adds a name and its value.
    pub(super) fn field(&mut self, name: &str, value: impl ToString) {
        self.row([name.to_owned(), value.to_string()]);
    }

    /// The text.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}{GAP}");
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// A value, or a dash where there is none.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A time span in its two largest units.
pub(super) fn span(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        s @ 3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        s => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// The time since then.
pub(super) fn since(then: jiff::Timestamp) -> String {
    span(Duration::try_from(jiff::Timestamp::now().duration_since(then)).unwrap_or_default())
}

/// The time until then.
pub(super) fn until(then: jiff::Timestamp) -> String {
    span(Duration::try_from(then.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["ID", "TEMPLATE"]);
        table.row(["bcdf".to_owned(), "default".to_owned()]);
        insta::assert_snapshot!(table.render(), @r"
        ID    TEMPLATE
        bcdf  default
        ");
    }

    #[test]
    fn a_cell_stays_a_cell_whatever_is_in_it() {
        let mut table = Table::of_fields();
        table.field("disk", "\u{1b}[2Jvda\nid  x");
        assert_eq!(table.render(), "disk  \\u001b[2Jvda\\u000aid  x\n");
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!(span(Duration::from_secs(59)), "59s");
        assert_eq!(span(Duration::from_secs(245)), "4m05s");
        assert_eq!(span(Duration::from_secs(7260)), "2h01m");
        assert_eq!(span(Duration::from_secs(90_000)), "1d01h");
    }
}
