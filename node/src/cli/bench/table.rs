//! A report for people.

use serde::Serialize;

use crate::bench::report::{Line, Report};
use crate::bench::saved::Change;
use crate::cli::out;

/// A baseline beside which a report stands.
#[derive(Debug, Serialize)]
pub(super) struct Beside {
    /// Its name.
    pub(super) name: String,
    /// By stage.
    #[serde(rename = "stages")]
    pub(super) changes: Vec<Change>,
    /// What it was measured with that the report was not.
    pub(super) differences: Vec<String>,
}

pub(super) fn text(report: &Report, beside: Option<&Beside>) -> String {
    let mut text = format!(
        "{} blocks of {} transactions ({}), {} accounts, {} threads\n{}, {}\n\n",
        report.blocks,
        report.txs,
        report.pattern.name(),
        report.accounts,
        report.threads,
        report.processor,
        report.backend,
    );
    if report.seen > 0 {
        text.push_str("every transaction was verified before its block came\n\n");
    }
    text.push_str(&stages(report, beside));
    text.push_str(
        "stages: one after the other; block: execution beside the signatures, as a node does it\n\n",
    );
    text.push_str(&references(report));
    text.push('\n');
    text.push_str(&ratios(report));
    text.push_str(&format!(
        "\nnew state root alone {:.1} ms; {:.0} transactions/s to the disk, {:.0} to the sealed \
         block\nclosed and opened again, the whole state read and its root compared: {:.0} ms\n",
        report.root_ms, report.tx_per_s, report.tx_per_s_sealed, report.restart_ms
    ));
    if let Some(beside) = beside {
        for difference in &beside.differences {
            text.push_str(&format!(
                "the baseline {} was measured otherwise: {difference}\n",
                beside.name
            ));
        }
    }
    text
}

fn stages(report: &Report, beside: Option<&Beside>) -> String {
    let sum: f64 = report.stages.iter().map(|line| line.us_per_tx_median).sum();
    let totals = report.totals.iter();
    let rows: Vec<_> = report
        .stages
        .iter()
        .map(|line| (line, true))
        .chain(totals.map(|line| (line, false)))
        .map(|(line, is_stage)| {
            let share = match is_stage {
                true => format!("{:.1}%", line.us_per_tx_median / sum * 100.0),
                false => String::new(),
            };
            let mut row = times(line);
            row.insert(3, share);
            if let Some(beside) = beside {
                let change = beside.changes.iter().find(|of| of.name == line.name);
                row.push(change.map_or_else(String::new, |of| format!("{:+.1}%", of.percent)));
            }
            row
        })
        .collect();
    let vs = beside.map(|beside| format!("VS {}", beside.name));
    let mut headings = vec!["STAGE", "µs/tx MIN", "MEDIAN", "SHARE", "tx/s"];
    headings.extend(vs.as_deref());
    out::table(&headings, &rows)
}

fn references(report: &Report) -> String {
    let rows: Vec<_> = report.references.iter().map(times).collect();
    out::table(&["SIGNATURES ALONE", "µs/tx MIN", "MEDIAN", "tx/s"], &rows)
}

/// Name, least, median, throughput.
fn times(line: &Line) -> Vec<String> {
    vec![
        line.name.clone(),
        format!("{:.2}", line.us_per_tx_min),
        format!("{:.2}", line.us_per_tx_median),
        format!("{:.0}", 1e6 / line.us_per_tx_median),
    ]
}

fn ratios(report: &Report) -> String {
    let rows: Vec<_> = report
        .ratios_spread
        .iter()
        .map(|(name, [lower, median, upper])| {
            vec![
                name.clone(),
                format!("{median:.2}"),
                format!("{lower:.2}"),
                format!("{upper:.2}"),
            ]
        })
        .collect();
    let headings = ["THROUGHPUT RATIO", "MEDIAN", "LOWER", "UPPER"];
    out::table(&headings, &rows)
}
