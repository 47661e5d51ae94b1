//! The task behind one multicast DNS backend: it moves packets between the sockets, the responder and what is known of others,
//! and wakes them when something is due.

mod clock;
mod hearing;
mod links;
mod looks;
mod publishing;
mod sending;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::clock::Clock;
use self::looks::Looks;
use self::publishing::Departed;
use super::Settings;
use super::asker::{Answer, Asker};
use super::counters::Counters;
use super::listener::Listener;
use super::probe::Prober;
use super::proto::LinkId;
use super::proto::responder::{Responder, Service, Transmit};
use super::publication::Publication;
use super::records::Records;
use super::routine::Routine;
use super::table::Table;
use super::wire;
use crate::backend::{Feed, Published, Ticket, Verdict};
use crate::error::{Error, Result};
use crate::instance::{Instance, Key};
use crate::net::Local;

/// What the backend asks of its driver.
pub(super) enum Command {
    Publish {
        instance: Arc<Instance>,
        replaces: Option<Ticket>,
        reply: oneshot::Sender<Result<Published>>,
    },
    Withdraw {
        ticket: Ticket,
        reply: oneshot::Sender<Result<()>>,
    },
    Verify {
        key: Key,
        reply: oneshot::Sender<Verdict>,
    },
    Close(oneshot::Sender<Result<()>>),
}

pub(super) struct Driver {
    settings: Settings,
    commands: mpsc::Receiver<Command>,
    /// The one who has asked to close.
    closes: Option<oneshot::Sender<Result<()>>>,
    observed: mpsc::UnboundedReceiver<()>,
    feed: Feed,
    counters: Arc<Counters>,
    port: Port,
    listener: Listener,
    responder: Responder,
    /// A packet that a link did not take, since when, and until when it is left alone.
    blocked: Option<(Transmit, Instant, Instant)>,
    /// Links on which nothing can be sent, and why.
    failing: BTreeMap<LinkId, String>,
    /// Whether somebody wants to know who is there.
    reads: bool,
    records: Records,
    routine: Routine,
    table: Table,
    prober: Option<Prober>,
    publications: HashMap<Arc<str>, Publication>,
    tickets: HashMap<Ticket, Arc<str>>,
    /// When each publication that is not at rest is looked at.
    due: BTreeSet<(Instant, Arc<str>)>,
    departed: Departed,
    /// Goodbyes that nobody could hear, to be said when there is a network again.
    unsaid: Vec<Service>,
    next_ticket: u64,
    looks: Looks,
    /// Those who wait for a goodbye to be sent.
    leavers: Vec<oneshot::Sender<Result<()>>>,
    local: Local,
    had_network: bool,
    /// No link to other hosts is left of those that were there.
    outage: bool,
    clock: Clock,
}

/// The sockets on port 5353.
#[derive(Debug)]
enum Port {
    /// Nobody has wanted anything yet.
    Unopened,
    Open,
    /// They can't be opened, and why.
    Taken(String),
}

impl Driver {
    pub(super) fn new(
        settings: Settings,
        commands: mpsc::Receiver<Command>,
        observed: mpsc::UnboundedReceiver<()>,
        feed: Feed,
        counters: Arc<Counters>,
    ) -> Self {
        let now = Instant::now();
        let table = Table::new(
            settings.namespace.clone(),
            settings.limits,
            feed.clone(),
            counters.clone(),
        );
        let service_type = wire::type_of(&settings.namespace);
        Self {
            prober: settings.probe.map(|every| Prober::new(every, now)),
            records: Records::new(settings.limits.instances),
            settings,
            commands,
            closes: None,
            observed,
            feed,
            counters,
            port: Port::Unopened,
            listener: Listener::new(&service_type),
            responder: Responder::new(&service_type, fastrand::u64(..), now),
            blocked: None,
            failing: BTreeMap::new(),
            reads: false,
            routine: Routine::default(),
            table,
            publications: HashMap::new(),
            tickets: HashMap::new(),
            due: BTreeSet::new(),
            departed: Departed::default(),
            unsaid: Vec::new(),
            next_ticket: 0,
            looks: Looks::default(),
            leavers: Vec::new(),
            local: Local::default(),
            had_network: false,
            outage: false,
            clock: Clock::starting(now),
        }
    }

    /// Runs until it is told to close, or nobody is left to tell it anything.
    pub(super) async fn run(mut self) {
        loop {
            self.send(Instant::now());
            if let Some(reply) = self.closes.take() {
                let result = self.close().await;
                // Who no longer waits need not know.
                let _ = reply.send(result);
                return;
            }
            let wake = self.next_wake();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.take_commands(command),
                    None => {
                        if let Err(error) = self.close().await {
                            tracing::warn!("closed mdns: {}", error.in_full());
                        }
                        return;
                    }
                },
                // Somebody observes.
                Some(()) = self.observed.recv() => {
                    let now = Instant::now();
                    self.look_again(now);
                    self.read(now);
                    self.start();
                }
                heard = self.listener.hear() => self.heard(heard),
                answers = hear_answers(&mut self.looks.asker) => self.answered(answers),
                finding = find(&mut self.prober) => {
                    // In an outage nobody can be reached, and nobody is gone for that.
                    if let Some((label, reachable)) = finding.filter(|_| !self.outage) {
                        self.table.set_reachable(&label, reachable);
                    }
                }
                () = sleep_until(wake) => {}
            }
            self.tick(Instant::now());
        }
    }

    /// Takes a command, and what else is there: what many register at once is announced together.
    fn take_commands(&mut self, first: Command) {
        let mut next = Some(first);
        for _ in 0..MAX_COMMANDS {
            match next.take() {
                Some(Command::Close(reply)) => {
                    self.closes = Some(reply);
                    return;
                }
                Some(command) => self.command(command),
                None => return,
            }
            next = self.commands.try_recv().ok();
        }
    }

    fn command(&mut self, command: Command) {
        self.start();
        match command {
            Command::Close(_) => {}
            Command::Publish {
                instance,
                replaces,
                reply,
            } => match &self.port {
                Port::Open => self.publish(instance, replaces, reply),
                Port::Taken(why) => {
                    // Who no longer waits need not know.
                    drop(reply.send(Err(Error::unavailable("mdns", why.as_str()))));
                }
                // It was opened, or taken, a moment ago.
                Port::Unopened => drop(reply.send(Err(Error::Closed))),
            },
            Command::Withdraw { ticket, reply } => match self.tickets.get(&ticket).cloned() {
                Some(label) => self.withdraw(&label, Some(reply)),
                None => drop(reply.send(Ok(()))),
            },
            Command::Verify { key, reply } => self.verify(&key, reply),
        }
    }

    /// Whether it can send and hear.
    fn is_open(&self) -> bool {
        matches!(self.port, Port::Open)
    }

    /// Says goodbye for all, and waits until that was sent twice.
    async fn close(&mut self) -> Result<()> {
        let left = self.publications.len();
        let ends = Instant::now() + CLOSE_TIME;
        for label in self.publications.keys().cloned().collect::<Vec<_>>() {
            self.withdraw(&label, None);
        }
        self.send(Instant::now());
        while !(self.responder.has_said_goodbye() && self.blocked.is_none()) {
            let next = self.next_send().unwrap_or(ends);
            if next >= ends {
                break;
            }
            tokio::time::sleep_until(next).await;
            self.send(Instant::now());
        }
        self.feed.close();
        if self.responder.has_said_goodbye() {
            return Ok(());
        }
        Err(Error::Incomplete {
            left: format!("{left} goodbyes"),
            source: None,
        })
    }
}

impl Drop for Driver {
    /// The runtime has ended before the registry was closed: says goodbye all the same.
    fn drop(&mut self) {
        self.feed.close();
        let labels: Vec<Arc<str>> = self.publications.keys().cloned().collect();
        if labels.is_empty() {
            return;
        }
        for label in labels {
            self.withdraw(&label, None);
        }
        self.send(Instant::now());
    }
}

/// What is answered to questions of our own.
async fn hear_answers(asker: &mut Option<Asker>) -> Vec<Answer> {
    match asker {
        Some(asker) => asker.hear().await,
        None => std::future::pending().await,
    }
}

async fn find(prober: &mut Option<Prober>) -> Option<(String, bool)> {
    match prober {
        Some(prober) => prober.finding().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Commands that are taken in one turn.
const MAX_COMMANDS: usize = 256;
const CLOSE_TIME: Duration = Duration::from_secs(2);
