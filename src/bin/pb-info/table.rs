//! Lines in columns.

use std::fmt::Write;

/// Writes each row indented by two blanks, its cells as wide as the widest of their column.
pub fn write(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {}", line.join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "b"].map(String::from).to_vec(), ["long", ""].map(String::from).to_vec()];
        let mut out = String::new();
        super::write(&mut out, &rows);
        assert_eq!(out, "  a     b\n  long\n");
    }
}
