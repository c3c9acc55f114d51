//! Tables for people: plain columns, which other tools can read too, and each row in one line.

use std::io::{self, IsTerminal};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

/// Where the size of a terminal is not known.
const USUAL: u16 = 80;

/// The rows below their header, without the columns that have nothing in them. On a terminal that is too
/// narrow, the texts in the columns `long` are cut.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, long: &[&str]) -> String {
    table_in(width(), header, rows, long)
}

/// Within a cell, a space that does not break: texts are cut where the width ends, not behind a word.
const UNBROKEN: &str = "\u{a0}";

fn table_in(
    width: Option<u16>,
    header: &[&str],
    mut rows: Vec<Vec<String>>,
    long: &[&str],
) -> String {
    let is_empty = |at: &usize| rows.iter().all(|row| row[*at].is_empty());
    let kept: Vec<_> = (0..header.len()).filter(|at| !is_empty(at)).collect();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(kept.iter().map(|at| header[*at]));
    for row in &mut rows {
        let cells = kept.iter().map(|at| match width {
            Some(_) => row[*at].replace(' ', UNBROKEN),
            None => std::mem::take(&mut row[*at]),
        });
        let mut row = comfy_table::Row::from(cells.collect::<Vec<_>>());
        row.max_height(1);
        table.add_row(row);
    }
    if let Some(width) = width {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    for (column, at) in table.column_iter_mut().zip(&kept) {
        column.set_padding((0, 2));
        if !long.contains(&header[*at]) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    match width {
        Some(_) => table.trim_fmt().replace(UNBROKEN, " "),
        None => table.trim_fmt(),
    }
}

/// Words, and what is said of each: in lines of a terminal's width.
pub(crate) fn prose(rows: Vec<[String; 2]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).add_rows(rows);
    if let Some(width) = width() {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(words) = table.column_mut(0) {
        words.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.trim_fmt()
}

/// On a terminal, each line is cut to its width.
pub(crate) fn cut(text: &str) -> String {
    let width = width().map_or(usize::MAX, usize::from);
    let cut = |line: &str| match line.char_indices().nth(width) {
        None => line.to_owned(),
        Some(_) => {
            let kept = line.chars().take(width.saturating_sub(1));
            kept.chain(['…']).collect()
        }
    };
    text.lines().map(cut).collect::<Vec<_>>().join("\n")
}

/// How many columns there are; `None`: no terminal, and nothing is cut.
fn width() -> Option<u16> {
    let columns = std::env::var("COLUMNS").ok();
    if let Some(columns) = columns.and_then(|columns| columns.parse().ok()) {
        return Some(columns);
    }
    if !io::stdout().is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let columns = size.map(|size| size.ws_col).filter(|columns| *columns > 0);
    Some(columns.unwrap_or(USUAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_the_width_ends() {
        let rows = vec![vec!["election -9079513288347323401".into(), "7".into()]];
        let table = table_in(Some(30), &["LOCK", "PID"], rows, &["LOCK"]);
        let row = table.lines().last().unwrap();
        assert!(row.starts_with("election -90795132883"), "{table}");
        assert!(row.contains('…') && row.chars().count() <= 30, "{table}");
    }
}
