//! `list`: what is there.

use std::process::ExitCode;

use hereabouts::net::Interfaces;
use hereabouts::{Instance, Snapshot, State, escaped};

use crate::args::Scoped;
use crate::exit::{Failure, NOTHING_FOUND};
use crate::output::{age_of, colored, json_text, near, pairs_of, text_of, write_line};
use crate::session::Session;
use crate::table::{self, Table};

pub(crate) async fn run(session: &Session, what: &Scoped) -> Result<ExitCode, Failure> {
    let look = session.look(what.service.as_ref(), |_| false).await?;
    if session.json {
        let all: Vec<_> = look.snapshot.iter().map(|i| session.json_of(i)).collect();
        write_line(&json_text(&all)?)?;
    } else if !look.snapshot.is_empty() {
        print(&look.snapshot, &session.interfaces())?;
    }
    let found = match look.snapshot.len() {
        0 => "nothing".to_owned(),
        1 => "1 instance".to_owned(),
        many => format!("{many} instances"),
    };
    let how = if look.cut_short { "cut short after" } else { "in" };
    session.say(&format!(
        "{found} on {}, {how} {:.1} s",
        session.registry.describe(),
        look.took.as_secs_f64()
    ));
    session.registry.close().await?;
    let missing = what.service.is_some() && look.snapshot.is_empty();
    Ok(ExitCode::from(if missing { NOTHING_FOUND } else { 0 }))
}

fn print(snapshot: &Snapshot, interfaces: &Interfaces) -> std::io::Result<()> {
    let mut table = Table::new(&[
        "SERVICE",
        "STATE",
        "NEAR",
        "AGE",
        "VERSION",
        "ADDRESSES",
        "ID",
        "METADATA",
    ]);
    for (instance, distance) in snapshot.iter_with_distance() {
        table.add(vec![
            escaped(instance.service().as_str()).to_string(),
            instance.state().as_str().to_owned(),
            near(distance).to_owned(),
            age_of(instance),
            escaped(instance.version()).to_string(),
            addresses_of(instance, interfaces),
            escaped(instance.id().as_str()).to_string(),
            pairs_of(instance),
        ]);
    }
    let paint = |column: usize, cell: &str| match (column, cell) {
        (STATE, "up" | "starting" | "draining") => colored(State::read(cell)),
        _ => cell.to_owned(),
    };
    for line in table.lines(table::width(), paint) {
        write_line(&line)?;
    }
    Ok(())
}

/// Its addresses, without the link-local ones where there are others.
fn addresses_of(instance: &Instance, interfaces: &Interfaces) -> String {
    let all: Vec<String> = instance
        .addresses()
        .iter()
        .map(|address| text_of(address, interfaces))
        .collect();
    let wide = all.iter().filter(|text| !text.starts_with("[fe80:"));
    match wide.clone().next() {
        Some(_) => wide.cloned().collect::<Vec<_>>().join(" "),
        None => all.join(" "),
    }
}

const STATE: usize = 1;
