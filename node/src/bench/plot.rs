//! A report as a picture: stages stacked into bars, the totals and the references beside them, as plain
//! SVG.

use std::fmt::Write as _;

use crate::bench::report::{Line, Report};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 210.0;
const RIGHT: f64 = 110.0;
const BAR_HEIGHT: f64 = 34.0;
const BAR_STEP: f64 = 52.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 84.0;
const COLOURS: [&str; 6] = [
    "#4e79a7", "#76b7b2", "#e15759", "#f28e2b", "#59a14f", "#b07aa1",
];
const TOTAL_COLOUR: &str = "#5b6f8a";
const REFERENCE_COLOUR: &str = "#9c9c9c";

/// A bar: its name and its parts, each with a colour and a length in microseconds.
struct Bar<'a> {
    name: &'a str,
    parts: Vec<(&'a str, &'static str, f64)>,
}

impl<'a> Bar<'a> {
    /// A bar of one part.
    fn of(line: &'a Line, colour: &'static str) -> Self {
        Self {
            name: &line.name,
            parts: vec![(&line.name, colour, line.us_per_tx_median)],
        }
    }

    fn whole(&self) -> f64 {
        self.parts.iter().map(|(_, _, us)| us).sum()
    }
}

/// The picture of a report.
#[must_use]
pub fn svg(report: &Report) -> String {
    let mut bars = vec![
        Bar {
            name: "stages, keys not seen",
            parts: stacked(&report.stages),
        },
        Bar {
            name: "stages, keys seen, no disk",
            parts: stacked(&report.stages_cached),
        },
    ];
    bars.extend(report.totals.iter().map(|line| Bar::of(line, TOTAL_COLOUR)));
    bars.extend(
        report
            .references
            .iter()
            .map(|line| Bar::of(line, REFERENCE_COLOUR)),
    );
    let longest = bars.iter().map(Bar::whole).fold(0.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest.max(f64::MIN_POSITIVE);
    let height = TOP + BAR_STEP * bars.len() as f64 + BOTTOM;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"14\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let title = format!(
        "{} transactions a block, {} accounts, {}, {} threads",
        report.txs,
        report.accounts,
        report.pattern.name(),
        report.threads
    );
    let below = format!(
        "microseconds per transaction, median of {} blocks; {}; {}",
        report.blocks, report.processor, report.backend
    );
    label(&mut text, 16.0, 32.0, "start", "font-size=\"18\"", &title);
    label(&mut text, 16.0, 56.0, "start", "fill=\"#555\"", &below);
    for (at, bar) in bars.iter().enumerate() {
        draw(&mut text, bar, TOP + BAR_STEP * at as f64, scale);
    }
    legend(&mut text, &report.stages, height - BOTTOM / 2.0);
    text.push_str("</svg>\n");
    text
}

fn stacked(lines: &[Line]) -> Vec<(&str, &'static str, f64)> {
    lines
        .iter()
        .zip(COLOURS)
        .map(|(line, colour)| (line.name.as_str(), colour, line.us_per_tx_median))
        .collect()
}

fn draw(text: &mut String, bar: &Bar<'_>, top: f64, scale: f64) {
    let middle = top + BAR_HEIGHT / 2.0 + 5.0;
    label(text, LEFT - 10.0, middle, "end", "", bar.name);
    let mut left = LEFT;
    for (name, colour, us) in &bar.parts {
        let width = us * scale;
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "<rect x=\"{left:.2}\" y=\"{top}\" width=\"{width:.2}\" height=\"{BAR_HEIGHT}\" \
             fill=\"{colour}\"><title>{}: {us:.2} µs</title></rect>",
            escaped(name)
        );
        left += width;
    }
    let whole = format!("{:.2}", bar.whole());
    label(text, left + 8.0, middle, "start", "", &whole);
}

fn legend(text: &mut String, lines: &[Line], y: f64) {
    let step = (WIDTH - 32.0) / COLOURS.len() as f64;
    for (at, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let x = 16.0 + step * at as f64;
        let _ = writeln!(
            text,
            "<rect x=\"{x:.2}\" y=\"{:.2}\" width=\"14\" height=\"14\" fill=\"{colour}\"/>",
            y - 12.0
        );
        let name = format!("{} {:.2}", line.name, line.us_per_tx_median);
        label(text, x + 20.0, y, "start", "", &name);
    }
}

fn label(text: &mut String, x: f64, y: f64, anchor: &str, more: &str, words: &str) {
    let _ = writeln!(
        text,
        "<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"{anchor}\" {more}>{}</text>",
        escaped(words)
    );
}

fn escaped(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
