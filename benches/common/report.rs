//! The table that is printed.
#![allow(dead_code, reason = "each bench uses its own part")]

use std::fmt;
use std::time::Duration;

/// What has been measured, a row each.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

/// One row: values of one kind, milliseconds unless they are counts.
#[derive(Debug)]
pub(crate) struct Row {
    what: String,
    who: String,
    values: Vec<f64>,
    decimals: usize,
    /// Of each value to the one beside it, sorted.
    ratios: Vec<f64>,
    goal: Option<Goal>,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    Times {
        p50: f64,
        p99: f64,
    },
    Median(f64),
    /// The median of the ratios.
    Ratio(f64),
    AtMost(f64),
}

impl Table {
    pub(crate) fn add(&mut self, rows: Vec<Row>) {
        self.0.extend(rows);
    }
}

impl Row {
    pub(crate) fn times(what: impl Into<String>, who: &str, times: &[Duration]) -> Self {
        let values = times.iter().map(|time| time.as_secs_f64() * 1000.0);
        Self::new(what.into(), who, values.collect(), 2)
    }

    pub(crate) fn count(what: impl Into<String>, who: &str, count: usize) -> Self {
        Self::counts(what, who, &[count])
    }

    pub(crate) fn counts(what: impl Into<String>, who: &str, counts: &[usize]) -> Self {
        let values = counts.iter().map(|count| *count as f64);
        Self::new(what.into(), who, values.collect(), 0)
    }

    fn new(what: String, who: &str, mut values: Vec<f64>, decimals: usize) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            what,
            who: who.to_owned(),
            values,
            decimals,
            ratios: Vec::new(),
            goal: None,
        }
    }

    /// What ours took longer than the other in each of the pairs, in microseconds.
    pub(crate) fn added(what: impl Into<String>, who: &str, ours: &[Duration], others: &[Duration]) -> Self {
        let microseconds = |time: &Duration| time.as_secs_f64() * 1e6;
        let pairs = ours.iter().zip(others);
        let added = pairs.map(|(ours, other)| microseconds(ours) - microseconds(other));
        Self::new(what.into(), who, added.collect(), 1)
    }

    /// What one of so many took that were timed together, in microseconds.
    pub(crate) fn each(what: impl Into<String>, who: &str, batches: &[Duration], of: usize) -> Self {
        let each = batches.iter().map(|time| time.as_secs_f64() * 1e6 / of as f64);
        Self::new(what.into(), who, each.collect(), 3)
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Sets the ratios, each of a pair that was taken one after the other.
    pub(crate) fn paired(mut self, ours: &[Duration], others: &[Duration]) -> Self {
        let pairs = ours.iter().zip(others);
        self.ratios = pairs
            .map(|(ours, other)| ours.as_secs_f64() / other.as_secs_f64())
            .collect();
        self.ratios.sort_by(f64::total_cmp);
        self
    }

    fn is_met(&self) -> Option<bool> {
        Some(match self.goal? {
            Goal::Times { p50, p99 } => {
                quantile(&self.values, 50) <= p50 && quantile(&self.values, 99) <= p99
            }
            Goal::Median(most) => quantile(&self.values, 50) <= most,
            Goal::Ratio(most) => quantile(&self.ratios, 50) <= most,
            Goal::AtMost(most) => quantile(&self.values, 100) <= most,
        })
    }
}

/// By nearest rank: with less than 100 values, p99 is the greatest.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:32} {:20} {:>4} {:>8} {:>8} {:>8} {:>8}  {:18} goal",
            "milliseconds", "", "n", "min", "p50", "p99", "max", "ratio (quartiles)"
        )?;
        for row in &self.0 {
            writeln!(f, "{row}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times { p50, p99 } => write!(f, "p50 {p50}, p99 {p99}"),
            Self::Median(most) => write!(f, "p50 {most}"),
            Self::Ratio(most) => write!(f, "ratio {most}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = self.decimals;
        let value = |percent| format!("{:.decimals$}", quantile(&self.values, percent));
        let cells = match self.values.len() {
            // One value has no spread.
            1 => [String::new(), value(50), String::new(), String::new()],
            _ => [value(0), value(50), value(99), value(100)],
        };
        let ratio = |percent| quantile(&self.ratios, percent);
        let ratio = match self.ratios.len() {
            0 => String::new(),
            _ => format!("{:.2} ({:.2}-{:.2})", ratio(50), ratio(25), ratio(75)),
        };
        let goal = self.goal.map(|goal| goal.to_string()).unwrap_or_default();
        let verdict = match self.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let [min, p50, p99, max] = cells;
        let line = format!(
            "{:32} {:20} {:>4} {min:>8} {p50:>8} {p99:>8} {max:>8}  {ratio:18} {goal:15} {verdict}",
            self.what,
            self.who,
            self.values.len(),
        );
        f.write_str(line.trim_end())
    }
}
