//! The picture for the README: one panel of bars per kind of work.

use std::fmt::Write;

use super::report::{Results, Sample, Spread, Who, Work};

const WIDTH: f64 = 900.0;
const LABELS: f64 = 250.0;
const BAR: f64 = 18.0;
const GAP: f64 = 6.0;
const PANEL_HEAD: f64 = 40.0;
const NUMBERS: f64 = 130.0;

const STYLE: &str = "text{font-family:system-ui,sans-serif;font-size:13px;fill:#24292f}\
    .head{font-weight:600;font-size:15px}.small{font-size:11px;fill:#57606a}\
    .own{fill:#1f6feb}.peer{fill:#afb8c1}.ends{stroke:#24292f;stroke-width:1.5}";

struct Panel {
    title: String,
    bars: Vec<(Who, Spread)>,
}

/// An SVG of throughput and latency; bars are medians, lines the range over the rounds.
pub fn draw(results: &Results, machine: &str) -> String {
    let rate: fn(&Sample) -> f64 = |sample| sample.rate;
    let p50: fn(&Sample) -> f64 = |sample| sample.p50 * 1000.0;
    let panels: Vec<Panel> = [
        (Work::Get, "requests/s", rate),
        (Work::GetPipelined, "requests/s", rate),
        (Work::Set, "writes/s", rate),
        (Work::SetPipelined, "writes/s", rate),
        (Work::Get, "µs (p50)", p50),
        (Work::Set, "µs (p50)", p50),
        (Work::SetAlone, "µs (p50)", p50),
    ]
    .into_iter()
    .map(|(work, unit, of)| Panel {
        title: title(work, unit),
        bars: bars(results, work, of),
    })
    .filter(|panel| !panel.bars.is_empty())
    .collect();
    let mut body = String::new();
    let mut y = 10.0;
    for panel in &panels {
        y = draw_panel(&mut body, panel, y);
    }
    let height = y + 40.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\"><style>{STYLE}</style>\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}\
         <text class=\"small\" x=\"10\" y=\"{}\">{}</text>\n</svg>\n",
        height - 14.0,
        escape(machine)
    )
}

fn title(work: Work, unit: &str) -> String {
    let better = if unit.starts_with('µ') {
        "shorter is better"
    } else {
        "longer is better"
    };
    let note = if work == Work::SetPipelined {
        "; the SQL clients have no pipelines"
    } else {
        ""
    };
    format!("{work}: {unit}, {better}{note}")
}

fn bars(results: &Results, work: Work, of: fn(&Sample) -> f64) -> Vec<(Who, Spread)> {
    results
        .contestants(work)
        .filter_map(|who| Some((who, results.spread(work, who, of)?)))
        .collect()
}

/// Draws one panel at `y`; the y below it.
fn draw_panel(svg: &mut String, panel: &Panel, y: f64) -> f64 {
    let most = panel.bars.iter().map(|(_, s)| s.most).fold(0.0, f64::max);
    let scale = (WIDTH - LABELS - NUMBERS) / most.max(f64::MIN_POSITIVE);
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        svg,
        "<text class=\"head\" x=\"10\" y=\"{}\">{}</text>",
        y + 22.0,
        escape(&panel.title)
    );
    let mut top = y + PANEL_HEAD;
    for (who, spread) in &panel.bars {
        draw_bar(svg, *who, spread, scale, top);
        top += BAR + GAP;
    }
    top + 12.0
}

fn draw_bar(svg: &mut String, who: Who, spread: &Spread, scale: f64, top: f64) {
    let class = if who == Who::Freshet { "own" } else { "peer" };
    let middle = top + BAR / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{LABELS}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\
         <line class=\"ends\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
         <text x=\"{:.1}\" y=\"{}\">{}</text>",
        LABELS - 8.0,
        middle + 4.5,
        escape(&who.to_string()),
        spread.median * scale,
        LABELS + spread.least * scale,
        LABELS + spread.most * scale,
        LABELS + spread.most * scale + 8.0,
        middle + 4.5,
        number(spread.median),
    );
}

fn number(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{:.0}k", value / 1000.0)
    } else {
        format!("{value:.0}")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
