//! The task behind one multicast DNS backend: it drives the engine, the sockets, the table and the clock.
//!
//! Nothing in its loop waits for anything but the next event, so that the engine's bounded queues
//! are emptied as fast as they fill.

mod clock;
mod hearing;
mod links;
mod looks;
mod orders;
mod publishing;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::clock::Clock;
use self::looks::Looks;
use self::orders::Order;
use self::publishing::Departed;
use super::Settings;
use super::asker::Asker;
use super::counters::Counters;
use super::engine::{Announcement, Engine, Sizes, Told};
use super::probe::Prober;
use super::publication::Publication;
use super::reader::Reader;
use super::records::Records;
use super::routine::Routine;
use super::sockets::Heard;
use super::table::Table;
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
    observed: mpsc::UnboundedReceiver<()>,
    feed: Feed,
    counters: Arc<Counters>,
    engine: Option<Engine>,
    /// Why there is none, where one can't be started.
    no_engine: Option<String>,
    /// The engine before this one, which says goodbye for its labels when ours are known.
    retired: Option<(Engine, Instant)>,
    orders: VecDeque<Order>,
    /// None before anybody wants to know who is there.
    reader: Option<Reader>,
    records: Records,
    routine: Routine,
    table: Table,
    prober: Option<Prober>,
    publications: HashMap<String, Publication>,
    tickets: HashMap<Ticket, String>,
    /// When each publication that is not at rest is looked at.
    due: BTreeSet<(Instant, String)>,
    departed: Departed,
    /// Goodbyes that nobody could hear, to be said when there is a network again.
    unsaid: Vec<Announcement>,
    next_ticket: u64,
    looks: Looks,
    goodbyes: FuturesUnordered<BoxFuture<'static, ()>>,
    last_goodbye: Option<Instant>,
    sizes: FuturesUnordered<BoxFuture<'static, Option<Sizes>>>,
    local: Local,
    had_network: bool,
    /// No link to other hosts is left of those that were there.
    outage: bool,
    told_at: Option<Instant>,
    /// Until when the engine is not listened to.
    pause: Option<Instant>,
    clock: Clock,
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
        Self {
            prober: settings.probe.map(|every| Prober::new(every, now)),
            records: Records::new(settings.limits.instances),
            settings,
            commands,
            observed,
            feed,
            counters,
            engine: None,
            no_engine: None,
            retired: None,
            orders: VecDeque::new(),
            reader: None,
            routine: Routine::default(),
            table,
            publications: HashMap::new(),
            tickets: HashMap::new(),
            due: BTreeSet::new(),
            departed: Departed::default(),
            unsaid: Vec::new(),
            next_ticket: 0,
            looks: Looks::default(),
            goodbyes: FuturesUnordered::new(),
            last_goodbye: None,
            sizes: FuturesUnordered::new(),
            local: Local::default(),
            had_network: false,
            outage: false,
            told_at: None,
            pause: None,
            clock: Clock::starting(now),
        }
    }

    /// Runs until it is told to close, or nobody is left to tell it anything.
    pub(super) async fn run(mut self) {
        loop {
            self.flush();
            let wake = self.next_wake();
            tokio::select! {
                told = told(&mut self.engine, self.pause) => {
                    self.pause_if_busy(Instant::now());
                    for told in told {
                        self.told(told);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Close(reply)) => {
                        let result = self.close().await;
                        // Who no longer waits need not know.
                        let _ = reply.send(result);
                        return;
                    }
                    Some(command) => self.command(command),
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
                Some(()) = self.goodbyes.next() => {}
                Some(sizes) = self.sizes.next() => self.measured(sizes),
                heard = hear(&mut self.reader) => self.heard(heard),
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

    /// While the engine tells much, or has much to do, it is not listened to all the time: each
    /// word would wake this task, which costs the engine more than what it says.
    fn pause_if_busy(&mut self, now: Instant) {
        let busy = !self.orders.is_empty() || self.told_at.is_some_and(|at| now - at < BUSY);
        self.told_at = Some(now);
        self.pause = busy.then(|| now + PAUSE);
    }

    fn command(&mut self, command: Command) {
        self.start();
        match command {
            Command::Close(_) => {}
            Command::Publish {
                instance,
                replaces,
                reply,
            } => match self.engine {
                Some(_) => self.publish(instance, replaces, reply),
                None => {
                    let why = self
                        .no_engine
                        .as_deref()
                        .unwrap_or("the mDNS engine is being restarted");
                    // Who no longer waits need not know.
                    drop(reply.send(Err(Error::unavailable("mdns", why))));
                }
            },
            Command::Withdraw { ticket, reply } => match self.tickets.get(&ticket).cloned() {
                Some(label) => self.withdraw(&label, Some(reply)),
                None => drop(reply.send(Ok(()))),
            },
            Command::Verify { key, reply } => self.verify(&key, reply),
        }
    }

    fn told(&mut self, told: Told) {
        let now = Instant::now();
        match told {
            Told::Announced(label) => self.sent(&label),
            Told::AddressAdded => {
                self.look(now);
                self.engine_noticed(now);
                let fixed: Vec<_> = self.publications.values().filter(|p| p.is_fixed()).collect();
                let again: Vec<_> = fixed
                    .iter()
                    .map(|p| p.announcement(&self.settings.namespace))
                    .collect();
                self.orders
                    .extend(again.into_iter().map(|a| Order::Register(Box::new(a))));
            }
            Told::AddressRemoved => self.look(now),
            Told::Died => self.engine_died(now),
        }
    }

    /// Says goodbye for all, waits until that is sent twice, and ends the engine.
    async fn close(&mut self) -> Result<()> {
        for label in self.publications.keys().cloned().collect::<Vec<_>>() {
            self.withdraw(&label, None);
        }
        if self.engine.is_none() {
            // Nothing is published where there is no engine.
            self.drop_orders();
        }
        let ends = Instant::now() + CLOSE_TIME;
        while self.engine.is_some() && !(self.orders.is_empty() && self.goodbyes.is_empty()) {
            self.flush();
            if Instant::now() >= ends {
                break;
            }
            let again = self.clock.flush.unwrap_or(ends).min(ends);
            tokio::select! {
                Some(()) = self.goodbyes.next() => {}
                () = tokio::time::sleep_until(again) => {}
            }
        }
        let left = self.orders.len();
        if let Some(at) = self.last_goodbye {
            tokio::time::sleep_until(at + GOODBYE_REPEATED).await;
        }
        self.feed.close();
        let engines = [self.engine.take(), self.retired.take().map(|(engine, _)| engine)];
        for mut engine in engines.into_iter().flatten() {
            engine
                .shut_down()
                .await
                .map_err(|why| Error::backend("mdns", why))?;
        }
        if left > 0 {
            return Err(Error::Incomplete {
                left: format!("{left} goodbyes"),
                source: None,
            });
        }
        Ok(())
    }
}

impl Drop for Driver {
    /// The runtime has ended before the registry was closed: says goodbye all the same.
    fn drop(&mut self) {
        self.feed.close();
        if let Some(engine) = &mut self.engine {
            let namespace = &self.settings.namespace;
            engine.farewell(self.publications.values().map(|p| p.last_words(namespace)));
        }
    }
}

/// What the engine tells, once `pause` is over.
async fn told(engine: &mut Option<Engine>, pause: Option<Instant>) -> Vec<Told> {
    if let Some(pause) = pause.filter(|pause| *pause > Instant::now()) {
        tokio::time::sleep_until(pause).await;
    }
    match engine {
        Some(engine) => engine.told().await,
        None => std::future::pending().await,
    }
}

/// What is said to everybody.
async fn hear(reader: &mut Option<Reader>) -> Vec<Heard> {
    match reader {
        Some(reader) => reader.hear().await,
        None => std::future::pending().await,
    }
}

/// What is answered to questions of our own.
async fn hear_answers(asker: &mut Option<Asker>) -> Vec<Heard> {
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

/// What follows this soon is part of a burst.
const BUSY: Duration = Duration::from_millis(2);
/// Short enough for its queues, of which the smaller one holds a hundred words.
const PAUSE: Duration = Duration::from_millis(1);
/// An announcement drops the addresses that it lacks only where they are more than a second old
/// (RFC 6762, 10.2), so one that follows another at once leaves them there.
const ANNOUNCE_AGAIN: Duration = Duration::from_millis(1500);
/// The engine repeats a goodbye after 120 ms.
const GOODBYE_REPEATED: Duration = Duration::from_millis(150);
const CLOSE_TIME: Duration = Duration::from_secs(2);
