//! The screen of `adit tunnel watch`.

use super::{Known, Row, Sort, now, rate};
use crate::{
    screen::cut,
    table::{ago, bytes},
};
use adit_control::status::State;
use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Style, Stylize},
    text::Line,
    widgets::{Cell, Paragraph, Row as Cells, Table},
};

/// Lines of what happened that are shown at most.
const HAPPENED: u16 = 6;

/// Draws what is known, the table from row `offset` on, which is made one that there is.
pub(super) fn draw(frame: &mut Frame<'_>, known: &Known, offset: &mut usize) {
    let area = frame.area();
    let happened = HAPPENED.min(area.height / 3).min(known.happened.len() as u16);
    let [head, table, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(if happened > 0 { happened + 1 } else { 0 }),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Line::from(title(known)).bold(), head);
    let room = usize::from(table.height.saturating_sub(1));
    *offset = (*offset).min(known.rows.len().saturating_sub(room));
    let rows = known.rows.iter().skip(*offset).take(room).map(|row| cells(row, area.width));
    let table_widget =
        Table::new(rows, widths(area.width)).header(header(area.width, known.sort)).column_spacing(2);
    frame.render_widget(table_widget, table);
    if happened > 0 {
        let last = known.happened.len() - usize::from(happened);
        let lines =
            known.happened.iter().skip(last).map(|line| Line::from(cut(line, area.width.into())).dim());
        let lines: Vec<_> = [Line::default()].into_iter().chain(lines).collect();
        frame.render_widget(Paragraph::new(lines), below);
    }
    let words = match &known.failed {
        Some(why) => Line::from(cut(why, area.width.into())).fg(Color::Red),
        None => {
            let last = (*offset + room).min(known.rows.len());
            let place = format!("{}-{last} of {}", (*offset + 1).min(last), known.rows.len());
            Line::from(cut(&format!("{place}  q end  arrows scroll  sort: n s i o"), area.width.into())).dim()
        }
    };
    frame.render_widget(words, foot);
}

fn title(known: &Known) -> String {
    let up = known.rows.iter().filter(|row| row.state == State::Connected).count();
    let inbound = known.rows.iter().filter_map(|row| row.inbound_bits).sum();
    let outbound = known.rows.iter().filter_map(|row| row.outbound_bits).sum();
    format!(
        "{}: {up} of {} connected, in {}, out {}",
        known.gateway,
        known.rows.len(),
        rate(Some(inbound)),
        rate(Some(outbound))
    )
}

/// Which of the columns a screen of this width has room for.
fn has(width: u16) -> (bool, bool, bool) {
    (width >= 60, width >= 80, width >= 110)
}

fn widths(width: u16) -> Vec<Constraint> {
    let (since, totals, why) = has(width);
    let mut widths =
        vec![Constraint::Min(6), Constraint::Length(13), Constraint::Length(12), Constraint::Length(12)];
    widths.extend(since.then_some(Constraint::Length(10)));
    widths.extend(totals.then_some([Constraint::Length(9); 2]).into_iter().flatten());
    widths.extend(why.then_some(Constraint::Fill(3)));
    widths
}

fn header(width: u16, sort: Sort) -> Cells<'static> {
    let (since, totals, why) = has(width);
    let mut names = vec![
        ("TUNNEL", Some(Sort::Name)),
        ("STATE", Some(Sort::State)),
        ("IN", Some(Sort::In)),
        ("OUT", Some(Sort::Out)),
    ];
    names.extend(since.then_some(("FOR", None)));
    names.extend(totals.then_some([("TOTAL IN", None), ("TOTAL OUT", None)]).into_iter().flatten());
    names.extend(why.then_some(("WHY NOT", None)));
    let cell = |(name, by): (&'static str, Option<Sort>)| match by == Some(sort) {
        true => Cell::from(name).style(Style::new().underlined()),
        false => Cell::from(name),
    };
    names.into_iter().map(cell).collect::<Cells<'_>>().bold()
}

fn cells(row: &Row, width: u16) -> Cells<'static> {
    let (since, totals, why) = has(width);
    let color = if row.state == State::Connected { Color::Green } else { Color::Yellow };
    let mut cells = vec![
        Cell::from(row.tunnel.clone()),
        Cell::from(row.state.to_string()).fg(color),
        Cell::from(rate(row.inbound_bits)),
        Cell::from(rate(row.outbound_bits)),
    ];
    cells.extend(since.then(|| Cell::from(ago(now(), row.since))));
    cells.extend(
        totals
            .then(|| [bytes(row.inbound.bytes), bytes(row.outbound.bytes)].map(Cell::from))
            .into_iter()
            .flatten(),
    );
    cells.extend(why.then(|| Cell::from(row.error.clone().unwrap_or_default())));
    Cells::new(cells)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Pressed, pressed},
        *,
    };
    use adit_control::status::{Event, LogEntry, Status};
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use ratatui::{Terminal, backend::TestBackend};
    use std::time::{Duration, Instant};

    /// Two looks a second apart, between which the first tunnel has had 125,000 octets in.
    fn known(count: usize) -> Known {
        let mut status: Status = serde_json::from_str(include_str!("../../tests/status.json")).unwrap();
        let two = status.tunnels.clone();
        status.tunnels = (0..count)
            .map(|n| {
                let mut tunnel = two[n % 2].clone();
                tunnel.name = format!("t{n:03}");
                tunnel
            })
            .collect();
        let mut known = Known::default();
        let start = Instant::now();
        known.take(&status, start, 1_000_089);
        status.tunnels[0].inbound.bytes += 125_000;
        known.take(&status, start + Duration::from_secs(1), 1_000_090);
        known
    }

    fn drawn(known: &Known, offset: &mut usize, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, known, offset)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn the_screen_has_state_and_rates() {
        let mut known = known(2);
        let entry = LogEntry { number: 0, at: 1_000_000, text: "IKE SA up".into() };
        known.note(&Event::Log { tunnel: "t001".into(), entry }, 1_000_090);
        let screen = drawn(&known, &mut 0, (120, 12));
        assert_eq!(screen[0], "a: 1 of 2 connected, in 1.0 Mbit/s, out 0 bit/s");
        for (line, parts) in [
            (1, ["TUNNEL", "WHY NOT"]),
            (2, ["connected", "1.0 Mbit/s"]),
            (3, ["phase1-failed", "no answer from"]),
        ] {
            assert!(parts.iter().all(|part| screen[line].contains(part)), "{screen:#?}");
        }
        assert!(
            screen[10].ends_with("t001: IKE SA up") && screen[11].starts_with("1-2 of 2  q end"),
            "{screen:#?}"
        );
        known.failed = Some("no Adit answers".into());
        assert_eq!(drawn(&known, &mut 0, (120, 12))[11], "no Adit answers");
    }

    #[test]
    fn a_long_list_is_scrolled_and_sorted_on_any_screen() {
        let mut known = known(50);
        let mut offset = usize::MAX;
        let screen = drawn(&known, &mut offset, (80, 12));
        assert_eq!(
            (offset, screen[10].starts_with("t049"), screen[11].as_str()),
            (41, true, "42-50 of 50  q end  arrows scroll  sort: n s i o")
        );
        known.sort_by(Sort::State);
        assert!(drawn(&known, &mut 0, (80, 12))[2].starts_with("t001"));
        known.sort_by(Sort::In);
        assert!(drawn(&known, &mut 0, (80, 12))[2].starts_with("t000"));
        for size in [(20, 4), (1, 1), (300, 100)] {
            drawn(&known, &mut 3, size);
        }
    }

    #[test]
    fn keys_end_scroll_and_sort() {
        let key = |code| pressed(KeyEvent::new(code, KeyModifiers::NONE), 5, 20);
        assert_eq!(key(KeyCode::Char('q')), Pressed::End);
        assert_eq!(key(KeyCode::Up), Pressed::To(4));
        assert_eq!(key(KeyCode::PageDown), Pressed::To(15));
        assert_eq!(key(KeyCode::Char('o')), Pressed::By(Sort::Out));
        assert_eq!(key(KeyCode::Char('c')), Pressed::Nothing);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(pressed(interrupt, 0, 20), Pressed::End);
    }
}
