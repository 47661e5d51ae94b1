//! P2: how long a fresh process takes to know who is there, beside a browse of the raw library and a raw
//! query that is answered by unicast (RFC 6762, 6.7), all from the same host.
//!
//! A few hosts publish by this library; a hundred by the raw one, since as many processes of ours on one machine would take its
//! processors for their own first looks.

use std::thread;
use std::time::Duration;

use crate::Outcome;
use crate::lab::{Host, Lan};
use crate::legacy;
use crate::measures::{ANNOUNCED, RATE};
use crate::ours;
use crate::raw::{self, Publisher};
use crate::report::{Goal, Row};

/// Hosts that publish the same number of instances each.
struct Crowd {
    what: &'static str,
    hosts: u8,
    each: usize,
    /// What a fresh watch may take, in milliseconds.
    goal: f64,
}

const CROWDS: [Crowd; 4] = [
    Crowd {
        what: "P2 fresh watch, 100 of a host",
        hosts: 1,
        each: 100,
        goal: 3.0,
    },
    Crowd {
        what: "P2 100 hosts",
        hosts: 100,
        each: 1,
        goal: 10.0,
    },
    Crowd {
        what: "P2 1,000 of a host",
        hosts: 1,
        each: 1000,
        goal: 20.0,
    },
    Crowd {
        what: "P2 10,000 of ten hosts",
        hosts: 10,
        each: 1000,
        goal: 200.0,
    },
];

/// A fresh look at each crowd, also shortly after another browser has asked.
pub(crate) fn all(quick: bool) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for crowd in CROWDS {
        eprintln!("        {}", crowd.what);
        rows.extend(looks(&crowd, if quick { 3 } else { 21 })?);
    }
    Ok(rows)
}

fn looks(crowd: &Crowd, rounds: usize) -> Outcome<Vec<Row>> {
    let lan = Lan::with_subnet(79);
    let reader = lan.host(1);
    let other = lan.host(2);
    let hosts: Vec<Host> = (0..crowd.hosts).map(|n| lan.host(10 + n)).collect();
    let mut publishers = Vec::new();
    let (mut own_publishers, mut registrations) = (Vec::new(), Vec::new());
    for host in &hosts {
        if hosts.len() > MOST_OF_OURS {
            let mut publisher = Publisher::start(host)?;
            publisher.publish(crowd.each)?;
            publishers.push(publisher);
        } else {
            let mut publisher = ours::Publisher::start(host)?;
            registrations.push(publisher.publish(crowd.each)?);
            own_publishers.push(publisher);
        }
    }
    thread::sleep(if hosts.len() > MOST_OF_OURS {
        ANNOUNCED
    } else {
        ALL_ANNOUNCED
    });
    let count = usize::from(crowd.hosts) * crowd.each;
    let (mut ours, mut query, mut browse) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ours_later, mut query_later) = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    for round in 0..rounds {
        for turn in 0..2 {
            match (round + turn) % 2 {
                0 => ours.push(ours::fresh_watch(&reader, count)?),
                _ => query.push(legacy::query(&reader, count)?),
            }
            thread::sleep(RATE);
        }
        // What the raw library does not find soon it does not find at all.
        if count <= FEW || round < HOPELESS {
            let (took, seen) = raw::fresh_browse(&reader, count, PATIENCE)?;
            match seen == count {
                true => browse.push(took),
                false => found.push(seen),
            }
            thread::sleep(RATE);
        }
        for turn in 0..2 {
            let browser = raw::browser(&other)?;
            thread::sleep(AFTER);
            match (round + turn) % 2 {
                0 => ours_later.push(ours::fresh_watch(&reader, count)?),
                _ => query_later.push(legacy::query(&reader, count)?),
            }
            raw::shut_down(&browser)?;
            thread::sleep(RATE);
        }
    }
    for publisher in publishers {
        publisher.close()?;
    }
    drop(registrations);
    for publisher in own_publishers {
        publisher.close()?;
    }
    let goal = Goal::Median(crowd.goal);
    let mut rows = vec![
        Row::times(crowd.what, "ours", &ours)
            .paired(&ours, &query)
            .goal(goal),
        Row::times("", "raw unicast query", &query),
    ];
    if !browse.is_empty() {
        rows.push(Row::times("", "raw browse", &browse));
    }
    if !found.is_empty() {
        let what = format!("   found in {} s, not all", PATIENCE.as_secs());
        rows.push(Row::counts(what, "raw browse", &found));
    }
    rows.extend([
        Row::times("   200 ms after another browser", "ours", &ours_later)
            .paired(&ours_later, &query_later)
            .goal(goal),
        Row::times("", "raw unicast query", &query_later),
    ]);
    Ok(rows)
}

/// The hosts that publish by this library, at most.
const MOST_OF_OURS: usize = 10;
/// Until our publishers have announced all four times.
const ALL_ANNOUNCED: Duration = Duration::from_secs(8);
/// Up to this number the raw library finds all.
const FEW: usize = 100;
const HOPELESS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_millis(200);
