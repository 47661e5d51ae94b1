//! Columns that fit the terminal.

use std::io::IsTerminal;

use unicode_width::UnicodeWidthStr;

/// Rows of cells under their headings. A cell may be coloured by its caller when it is printed.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        let mut table = Self {
            rows: Vec::new(),
            widths: vec![0; headings.len()],
        };
        table.add(headings.iter().map(|heading| (*heading).to_owned()).collect());
        table
    }

    pub(crate) fn add(&mut self, row: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.width());
        }
        self.rows.push(row);
    }

    /// The lines, each at most `limit` wide where there is one; `paint` may colour a cell.
    pub(crate) fn lines(&self, limit: Option<usize>, paint: impl Fn(usize, &str) -> String) -> Vec<String> {
        let mut widths = self.widths.clone();
        if let Some(limit) = limit {
            narrow(&mut widths, limit);
        }
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            let mut pending = 0;
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let cell = cut(cell, *width);
                line += &" ".repeat(pending);
                pending = width.saturating_sub(cell.width()) + GAP;
                line += &paint(column, &cell);
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// Takes from the widest column until all fit.
fn narrow(widths: &mut [usize], limit: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > limit {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > LEAST) else {
            return;
        };
        *widest -= 1;
    }
}

/// As much of a text as fits, with a sign that there is more.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        // Of the whole: some characters change the width of the one before.
        kept.push(c);
        if kept.width() >= width {
            kept.pop();
            break;
        }
    }
    kept.push('…');
    kept
}

/// How wide standard output is, where it is a terminal.
pub(crate) fn width() -> Option<usize> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let (terminal_size::Width(width), _) = terminal_size::terminal_size_of(out)?;
    Some(usize::from(width)).filter(|width| *width > 0)
}

const GAP: usize = 2;
const LEAST: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_fit() {
        let mut table = Table::new(&["SERVICE", "ID"]);
        table.add(vec![
            "größer".to_owned(),
            "a-very-long-id-of-an-instance".to_owned(),
        ]);
        table.add(vec!["日本".to_owned(), "b".to_owned()]);
        let plain = |_: usize, cell: &str| cell.to_owned();
        assert_eq!(
            table.lines(None, plain),
            [
                "SERVICE  ID",
                "größer   a-very-long-id-of-an-instance",
                "日本     b"
            ]
        );
        let narrow = table.lines(Some(20), plain);
        assert_eq!(narrow[1], "größer   a-very-lon…");
        assert!(narrow.iter().all(|line| line.width() <= 20), "{narrow:?}");
    }

    #[test]
    fn characters_that_change_the_width_of_others_fit_too() {
        let clouds = "☁\u{fe0f}".repeat(30);
        let mut table = Table::new(&["SERVICE", "ID"]);
        table.add(vec![clouds.clone(), clouds]);
        for limit in 12..70 {
            let lines = table.lines(Some(limit), |_, cell| cell.to_owned());
            assert!(
                lines.iter().all(|line| line.width() <= limit.max(14)),
                "{limit}: {lines:?}"
            );
        }
    }
}
