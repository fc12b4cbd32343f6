//! Resources as a workbook of a spreadsheet (Office Open XML).

use super::render::{columns, leaves};
use rust_xlsxwriter::{Format, Workbook, XlsxError};
use serde_json::Value;

/// Characters that a cell may have.
const LONGEST: usize = 32_767;

/// A workbook of one sheet: a header that stays in sight, and a row for each, every field a column. Numbers are numbers there.
pub(super) fn workbook(found: &[Value], name: &str) -> Result<Vec<u8>, XlsxError> {
    let rows: Vec<Vec<(String, &Value)>> = found.iter().map(leaves).collect();
    let columns = columns(&rows);
    let mut book = Workbook::new();
    let sheet = book.add_worksheet();
    sheet.set_name(name)?;
    let bold = Format::new().set_bold();
    for (column, field) in (0..).zip(&columns) {
        sheet.write_string_with_format(0, column, *field, &bold)?;
    }
    for (row, fields) in (1..).zip(&rows) {
        for (field, value) in fields {
            let Some(column) = columns.iter().position(|known| known == field) else { continue };
            // A sheet has no more columns than that.
            let column = u16::try_from(column).unwrap_or(u16::MAX);
            match value {
                Value::Number(number) if number.as_f64().is_some() => {
                    sheet.write_number(row, column, number.as_f64().unwrap_or_default())?;
                }
                Value::Bool(yes) => drop(sheet.write_boolean(row, column, *yes)?),
                other => {
                    let text: String = super::render::word(Some(other)).chars().take(LONGEST).collect();
                    sheet.write_string(row, column, text)?;
                }
            }
        }
    }
    sheet.set_freeze_panes(1, 0)?;
    sheet.autofit();
    book.save_to_buffer()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::{Cursor, Read};

    fn part(book: &[u8], name: &str) -> String {
        let mut archive = zip::ZipArchive::new(Cursor::new(book)).unwrap();
        let mut text = String::new();
        archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// What is between two tags, each time.
    fn within<'a>(text: &'a str, tag: &str) -> Vec<&'a str> {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        text.split(open.as_str()).skip(1).filter_map(|rest| rest.split(close.as_str()).next()).collect()
    }

    #[test]
    fn every_field_is_read_back_from_a_sheet() {
        let found = [
            json!({"name": "a-b", "mtu": 1400, "ike": {"dh": [31, 14]}, "remark": "<&>"}),
            json!({"name": "a-c", "enabled": true}),
        ];
        let book = workbook(&found, "tunnels").unwrap();
        assert!(part(&book, "xl/workbook.xml").contains("name=\"tunnels\""));
        let words = part(&book, "xl/sharedStrings.xml");
        let words = within(&words, "t");
        let mut known = words.clone();
        known.sort_unstable();
        assert_eq!(
            known,
            ["&lt;&amp;&gt;", "31,14", "a-b", "a-c", "enabled", "ike.dh", "mtu", "name", "remark"]
        );
        let sheet = part(&book, "xl/worksheets/sheet1.xml");
        let rows: Vec<&str> = sheet.split("<row ").skip(1).collect();
        let values: Vec<Vec<&str>> = rows.iter().map(|row| within(row, "v")).collect();
        assert_eq!(values.iter().map(Vec::len).collect::<Vec<_>>(), [5, 4, 2]);
        assert!(values[1].contains(&"1400") && rows[2].contains("t=\"b\""), "{sheet}");
        let first = |row: usize| words[values[row][0].parse::<usize>().unwrap()];
        let names = [first(1), first(2)];
        assert!(names.contains(&"a-c"), "{sheet}");
    }
}
