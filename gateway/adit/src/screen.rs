//! What fits a terminal: lines that are not longer than it is wide, and not more than it is high.

use crossterm::terminal;
use std::io::IsTerminal;

/// What stands where something is left out.
const LEFT_OUT: char = '…';
/// Blanks between two columns.
const GAP: usize = 2;

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Screen {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl Screen {
    /// That of stdout; `None` when it is no terminal, or one that has no size.
    pub(crate) fn of_stdout() -> Option<Screen> {
        if !std::io::stdout().is_terminal() {
            return None;
        }
        let (columns, rows) = terminal::size().ok()?;
        (columns > 0 && rows > 0).then(|| Screen { columns: columns.into(), rows: rows.into() })
    }
}

/// A line of at most so many characters, its end left out where it is longer.
pub(crate) fn cut(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    line.chars().take(columns.saturating_sub(1)).chain((columns > 0).then_some(LEFT_OUT)).collect()
}

/// A line as lines of at most so many characters, broken between words, each after the first indented by two.
pub(crate) fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let indent = line.len() - line.trim_start().len();
    let mut current = " ".repeat(indent);
    let mut is_empty = true;
    for word in line.split_whitespace() {
        let longer = current.chars().count() + usize::from(!is_empty) + word.chars().count();
        if !is_empty && longer > columns {
            lines.push(cut(&current, columns));
            current = " ".repeat(indent + 2);
            is_empty = true;
        }
        if !is_empty {
            current.push(' ');
        }
        current += word;
        is_empty = false;
    }
    lines.push(cut(&current, columns));
    lines
}

/// A table without lines that is at most so wide: of the columns that `spare` names, the first is left out first; what still
/// does not fit is cut. The header comes first.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>], spare: &[&str], columns: usize) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut shown: Vec<usize> = (0..header.len()).collect();
    let total = |shown: &[usize]| shown.iter().map(|c| widths[*c] + GAP).sum::<usize>().saturating_sub(GAP);
    for name in spare {
        if total(&shown) <= columns {
            break;
        }
        shown.retain(|column| header[*column] != *name);
    }
    let line = |cell: &dyn Fn(usize) -> String| {
        let padded = shown.iter().map(|column| format!("{:1$}", cell(*column), widths[*column] + GAP));
        cut(padded.collect::<String>().trim_end(), columns)
    };
    let header = line(&|column| header[column].to_owned());
    [header].into_iter().chain(rows.iter().map(|row| line(&|column| row[column].clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_broken() {
        assert_eq!([cut("abc", 3), cut("abcd", 3), cut("abc", 1), cut("abc", 0)], ["abc", "ab…", "…", ""]);
        assert_eq!(wrapped("  one two three", 9), ["  one two", "    three"]);
        assert_eq!(wrapped("one", 2), ["o…"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn columns_are_left_out_in_their_order() {
        let rows = [vec!["a-b".to_owned(), "connected".into(), "1 min".into()]];
        let header = ["TUNNEL", "STATE", "FOR"];
        let at = |columns| table(&header, &rows, &["STATE", "FOR"], columns);
        assert_eq!(at(24), ["TUNNEL  STATE      FOR", "a-b     connected  1 min"]);
        assert_eq!(at(23), ["TUNNEL  FOR", "a-b     1 min"]);
        assert_eq!(at(12), ["TUNNEL", "a-b"]);
        assert_eq!(at(4), ["TUN…", "a-b"]);
    }
}
