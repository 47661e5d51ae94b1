//! The measures, each taken by turns from both sides.

use std::thread;
use std::time::{Duration, Instant};

use crate::args::Who;
use crate::ours::{self, Ours};
use crate::pair::Pair;
use crate::raw::{self, Raw};
use crate::report::{Goal, Row, Table};
use crate::{Outcome, crowd, idle, looks, lost};

/// The last takes eleven minutes, and is taken only where it is named.
pub(crate) const MEASURES: [&str; 7] = ["P1", "P2", "P3", "P8", "P9", "lost", CROWD_WATCHED];
const CROWD_WATCHED: &str = "crowd";

/// Takes the measures and prints the table.
pub(crate) fn all(quick: bool, only: &[String]) -> Outcome<()> {
    let began = Instant::now();
    let (ours, raw) = (Pair::new(77), Pair::new(78));
    let mut table = Table::default();
    for name in MEASURES {
        let is_named = only.iter().any(|wanted| wanted == name);
        if !(is_named || only.is_empty() && name != CROWD_WATCHED) {
            continue;
        }
        eprintln!("[{:3} s] {name}", began.elapsed().as_secs());
        let rows = match name {
            "P1" => arrivals(&ours, &raw, quick),
            "P2" => looks::all(quick),
            "P3" => departures(&ours, &raw, quick),
            "P8" => crowds(&ours, &raw, quick),
            "lost" => lost::all(quick),
            CROWD_WATCHED => crowd::all(quick),
            _ => idleness(&ours, &raw, quick),
        };
        table.add(rows.map_err(|why| format!("{name}: {why}"))?);
    }
    eprintln!("[{:3} s] done", began.elapsed().as_secs());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{} cores, load {} at the end",
        thread::available_parallelism()?,
        load.split(' ').next().unwrap_or("?"),
    );
    print!("{table}");
    Ok(())
}

/// P1.
fn arrivals(on_ours: &Pair, on_raw: &Pair, quick: bool) -> Outcome<Vec<Row>> {
    let (mut ours, mut raw) = (Ours::start(on_ours)?, Raw::start(on_raw)?);
    let (mut measured, mut probed) = (Measured::default(), Vec::new());
    let rounds = if quick { 20 } else { 300 };
    for round in 0..rounds {
        measured.take(
            round,
            || ours.register_to_added(),
            || raw.register_to_resolved(false),
        )?;
        if round % (rounds / 10) == 0 {
            probed.push(raw.register_to_resolved(true)?);
        }
        thread::sleep(SETTLE);
    }
    ours.close()?;
    raw.close()?;
    Ok(vec![
        Row::times("P1 register to Added", "ours", &measured.ours)
            .paired(&measured.ours, &measured.raw)
            .goal(Goal::Times { p50: 2.0, p99: 10.0 }),
        Row::times("", "raw, unprobed", &measured.raw),
        Row::times("", "raw, probed", &probed),
    ])
}

/// P3.
fn departures(on_ours: &Pair, on_raw: &Pair, quick: bool) -> Outcome<Vec<Row>> {
    let (mut ours, mut raw) = (Ours::start(on_ours)?, Raw::start(on_raw)?);
    let mut measured = Measured::default();
    let rounds = if quick { 20 } else { 200 };
    for round in 0..rounds {
        measured.ours.push(ours.deregister_to_unpicked()?);
        if round % (rounds / 10) == 0 {
            measured.raw.push(raw.unregister_to_removed()?);
        }
    }
    ours.close()?;
    raw.close()?;
    Ok(vec![
        Row::times("P3 deregister to not picked", "ours", &measured.ours)
            .goal(Goal::Times { p50: 2.0, p99: 10.0 }),
        Row::times("", "raw, goodbye alone", &measured.raw),
    ])
}

/// P8.
fn crowds(on_ours: &Pair, on_raw: &Pair, quick: bool) -> Outcome<Vec<Row>> {
    let mut measured = Measured::default();
    for round in 0..if quick { 2 } else { 15 } {
        measured.take(
            round,
            || Ours::start(on_ours)?.register_all(CROWD),
            || Raw::start(on_raw)?.register_all(CROWD),
        )?;
        // The goodbyes of a thousand are still on their way.
        thread::sleep(RATE);
    }
    Ok(measured.beside("P8 1,000 under a running watch", 1.1))
}

/// P9.
fn idleness(on_ours: &Pair, on_raw: &Pair, quick: bool) -> Outcome<Vec<Row>> {
    let (mut ours, mut raw) = (
        ours::Publisher::start(&on_ours.a)?,
        raw::Publisher::start(&on_raw.a)?,
    );
    let registrations = ours.publish(WATCHED)?;
    raw.publish(WATCHED)?;
    thread::sleep(ANNOUNCED);
    // A browse asks 1, 3, 7, 15 and 31 s after its beginning (RFC 6762, 5.2), then once a minute and less.
    let (settle, seconds) = if quick { (8, 5) } else { (35, 20) };
    let children = [
        idle::start(&on_ours.b, Who::Ours, settle, seconds)?,
        idle::start(&on_raw.b, Who::Raw, settle, seconds)?,
        idle::start(&on_raw.b, Who::Nobody, settle, seconds)?,
    ];
    let [with_ours, with_raw, with_none] = children.map(idle::read);
    let costs = [
        ("ours", with_ours?),
        ("raw", with_raw?),
        ("runtime alone", with_none?),
    ];
    ours.close()?;
    raw.close()?;
    drop(registrations);
    let what = format!("P9 CPU in {seconds} s, 100 watched");
    let mut rows: Vec<Row> = costs
        .iter()
        .map(|(who, cost)| Row::times("", who, &[cost.cpu]))
        .collect();
    let most = Duration::from_secs(seconds).mul_f64(UNSEEN).as_secs_f64() * 1e3;
    rows[0] = Row::times(what, "ours", &[costs[0].1.cpu]).goal(Goal::AtMost(most));
    let threads = costs.iter().map(|(who, cost)| Row::count("", who, cost.threads));
    rows.extend(threads);
    rows[3] =
        Row::count("   threads beside the runtime's", "ours", costs[0].1.threads).goal(Goal::AtMost(1.0));
    Ok(rows)
}

/// What both sides took, in pairs.
#[derive(Debug, Default)]
struct Measured {
    ours: Vec<Duration>,
    raw: Vec<Duration>,
}

impl Measured {
    /// Takes one of each; who begins alternates.
    fn take(
        &mut self,
        round: usize,
        ours: impl FnOnce() -> Outcome<Duration>,
        raw: impl FnOnce() -> Outcome<Duration>,
    ) -> Outcome<()> {
        if round.is_multiple_of(2) {
            self.ours.push(ours()?);
            self.raw.push(raw()?);
        } else {
            self.raw.push(raw()?);
            self.ours.push(ours()?);
        }
        Ok(())
    }

    fn beside(&self, what: &str, most: f64) -> Vec<Row> {
        let ours = Row::times(what, "ours", &self.ours);
        vec![
            ours.paired(&self.ours, &self.raw).goal(Goal::Ratio(most)),
            Row::times("", "raw, unprobed", &self.raw),
        ]
    }
}

/// How many instances P9 watches.
pub(crate) const WATCHED: usize = 100;
/// How many instances P8 registers.
const CROWD: usize = 1000;
/// Between one sample and the next, so that they don't meet.
pub(crate) const SETTLE: Duration = Duration::from_millis(20);
/// Until a browse has asked twice, and a watch is complete.
pub(crate) const SYNC: Duration = Duration::from_millis(1500);
/// Until everything was announced twice.
pub(crate) const ANNOUNCED: Duration = Duration::from_millis(2500);
/// A record is multicast once a second (RFC 6762, 6): who asks earlier gets no answer.
pub(crate) const RATE: Duration = Duration::from_millis(1300);
/// The thousandth part of a core, below which `top` shows nothing.
const UNSEEN: f64 = 0.001;
/// Whatever takes longer has been lost.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);
