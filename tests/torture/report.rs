//! What a run has shown: a table of what clients saw of each fault, and, if something is wrong, the
//! history and a picture.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;

use super::cluster::{PROXIES, name};
use super::faults::Victim;
use super::history::{Operation, Time, quoted};
use super::round::{Outcome, Span};

const MS: Time = 1_000_000;

/// What clients saw of one sort of fault.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    times: u32,
    /// How long the fault itself took, at most.
    length: Time,
    /// The longest time without an acknowledged write, through the proxy concerned.
    gap_concerned: Option<Time>,
    /// The same through the others; of faults that concern all, through any.
    gap_others: Time,
    refused: usize,
    unknown: usize,
}

/// What clients saw of all faults so far.
#[derive(Default)]
pub struct Table {
    rows: BTreeMap<String, Row>,
    writes: usize,
    reads: usize,
}

impl Table {
    /// Adds what clients saw in one round.
    pub fn add(&mut self, outcome: &Outcome) {
        let mut acknowledged: Vec<Vec<Time>> = vec![Vec::new(); PROXIES];
        for one in &outcome.operations {
            if one.is_write() && !one.is_refused() && !one.is_unknown() {
                acknowledged[one.proxy].push(one.answered);
                self.writes += 1;
            } else if !one.is_write() {
                self.reads += 1;
            }
        }
        for times in &mut acknowledged {
            times.sort_unstable();
        }
        for span in outcome.spans.iter().filter(|span| span.is_single) {
            self.add_span(span, &acknowledged, &outcome.operations);
        }
    }

    fn add_span(&mut self, span: &Span, acknowledged: &[Vec<Time>], operations: &[Operation]) {
        let row = self.rows.entry(span.fault.sort()).or_default();
        row.times += 1;
        row.length = row.length.max(span.to - span.from);
        for (proxy, times) in acknowledged.iter().enumerate() {
            let gap = longest_gap(times, span.from, span.recovered);
            if span.fault.proxy() == Some(proxy) {
                row.gap_concerned = row.gap_concerned.max(Some(gap));
            } else {
                row.gap_others = row.gap_others.max(gap);
            }
        }
        let concerns = |one: &&Operation| {
            one.is_write() && one.answered >= span.from && one.answered <= span.recovered
        };
        let seen = || operations.iter().filter(concerns);
        row.refused += seen().filter(|one| one.is_refused()).count();
        row.unknown += seen().filter(|one| one.is_unknown()).count();
    }

    /// As text.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} writes acknowledged, {} reads; longest time without an acknowledged write, in ms, and writes with an error:\n\
             {:<28} {:>5} {:>8} {:>10} {:>10} {:>8} {:>8}\n",
            self.writes,
            self.reads,
            "fault",
            "times",
            "took",
            "concerned",
            "others",
            "refused",
            "unknown"
        );
        for (sort, row) in &self.rows {
            let concerned = row
                .gap_concerned
                .map_or_else(|| "-".to_owned(), |gap| (gap / MS).to_string());
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{sort:<28} {:>5} {:>8} {concerned:>10} {:>10} {:>8} {:>8}",
                row.times,
                row.length / MS,
                row.gap_others / MS,
                row.refused,
                row.unknown
            );
        }
        text
    }
}

/// The longest time between two of `times`, of which at least a part is between `from` and `to`.
fn longest_gap(times: &[Time], from: Time, to: Time) -> Time {
    let first = times.partition_point(|time| *time < from).saturating_sub(1);
    let last = (times.partition_point(|time| *time <= to) + 1).min(times.len());
    let inside = times.get(first..last).unwrap_or_default();
    let between = inside.windows(2).map(|pair| pair[1] - pair[0]).max();
    let open_end = match inside.last() {
        Some(end) if *end < to => to - end,
        Some(_) => 0,
        None => to - from,
    };
    between.unwrap_or(0).max(open_end)
}

/// Writes the history as JSON lines, the faults among them.
pub fn write_history(folder: &Path, outcome: &Outcome) -> Result<()> {
    let names: BTreeMap<_, _> = outcome
        .objects
        .all()
        .iter()
        .flat_map(super::objects::Thing::objects)
        .collect();
    let file = std::fs::File::create(folder.join("history.jsonl"))?;
    let mut file = std::io::BufWriter::new(file);
    for span in &outcome.spans {
        writeln!(
            file,
            "{{\"fault\":{},\"from_us\":{},\"to_us\":{}}}",
            quoted(&span.fault.to_string()),
            span.from / 1000,
            span.to / 1000
        )?;
    }
    for one in &outcome.operations {
        let object = names.get(&one.object).map_or("?", String::as_str);
        writeln!(file, "{}", one.json(object))?;
    }
    file.flush()?;
    Ok(())
}

const WIDTH: f64 = 1600.0;
const LANE: f64 = 90.0;
/// Columns of a lane.
const COLUMNS: usize = 400;

/// The round as a picture: for each proxy how many operations were answered and how many failed,
/// and above them the faults.
pub fn picture(outcome: &Outcome) -> String {
    let operations = &outcome.operations;
    let from = operations.first().map_or(0, |one| one.sent);
    let to = operations
        .iter()
        .map(|one| one.answered)
        .max()
        .unwrap_or(from + 1)
        .max(from + 1);
    let x = |time: Time| (time.saturating_sub(from)) as f64 / (to - from) as f64 * WIDTH;
    let faults = outcome.spans.len() as f64 * 16.0 + 20.0;
    let height = faults + LANE * PROXIES as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    // Writing to a string does not fail.
    for (index, span) in outcome.spans.iter().enumerate() {
        let (left, right, y) = (x(span.from), x(span.to), index as f64 * 16.0 + 4.0);
        let fill = match span.fault.victim() {
            Victim::Cache => "#e8a33d",
            Victim::Store => "#c0504d",
            Victim::Proxy(_) => "#7f5fa8",
            Victim::Link(..) => "#4f81bd",
        };
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"12\" fill=\"{fill}\"/>\
             <rect x=\"{left:.1}\" y=\"{faults}\" width=\"{:.1}\" height=\"{}\" fill=\"{fill}\" opacity=\"0.12\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>",
            (right - left).max(2.0),
            (right - left).max(1.0),
            LANE * PROXIES as f64,
            left + 3.0,
            y + 10.0,
            span.fault
        );
    }
    for proxy in 0..PROXIES {
        let base = faults + LANE * (proxy as f64 + 1.0);
        draw_lane(&mut svg, operations, proxy, base, x);
        let label = format!(
            "{}: answered (grey), refused (orange), unknown (red)",
            name(proxy)
        );
        let _ = writeln!(
            svg,
            "<text x=\"4\" y=\"{:.1}\">{label}</text>\
             <line x1=\"0\" x2=\"{WIDTH}\" y1=\"{base:.1}\" y2=\"{base:.1}\" stroke=\"#888\"/>",
            base - LANE + 14.0
        );
    }
    let seconds = (to - from) / 1_000_000_000;
    for second in (0..=seconds).step_by((seconds as usize / 20).max(1)) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\">{second} s</text>",
            x(from + second * 1_000_000_000),
            height - 8.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_lane(
    svg: &mut String,
    operations: &[Operation],
    proxy: usize,
    base: f64,
    x: impl Fn(Time) -> f64,
) {
    let mut counts = vec![[0_u32; 3]; COLUMNS];
    for one in operations.iter().filter(|one| one.proxy == proxy) {
        let column = (x(one.answered) / WIDTH * COLUMNS as f64) as usize;
        let sort = match one {
            one if one.is_unknown() => 2,
            one if one.is_refused() => 1,
            _ => 0,
        };
        counts[column.min(COLUMNS - 1)][sort] += 1;
    }
    let most = counts
        .iter()
        .map(|column| column[0])
        .max()
        .unwrap_or(1)
        .max(1);
    let width = WIDTH / COLUMNS as f64;
    for (column, sorts) in counts.iter().enumerate() {
        let mut y = base;
        for (count, fill) in sorts.iter().zip(["#999", "#f79646", "#d00"]) {
            if *count == 0 {
                continue;
            }
            // A single error is to be seen.
            let height = (f64::from(*count) / f64::from(most) * (LANE - 24.0)).max(2.0);
            y -= height;
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>",
                column as f64 * width
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::longest_gap;

    #[test]
    fn gaps_reach_over_the_ends_of_what_is_looked_at() {
        let times = [10, 20, 50, 60];
        assert_eq!(longest_gap(&times, 25, 55), 30);
        assert_eq!(longest_gap(&times, 52, 56), 10);
        assert_eq!(longest_gap(&times, 55, 100), 40);
        assert_eq!(longest_gap(&[], 5, 9), 4);
    }
}
