//! The task behind one multicast DNS backend: it moves packets between the sockets and the endpoint, tells that which interfaces
//! there are, and wakes it when something is due. It decides nothing of the protocol.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::asker::{Answer, Asker};
use super::counters::Counters;
use super::endpoint::Endpoint;
use super::link_health::LinkHealth;
use super::listener::Listener;
use super::outbox::{Outbox, SEND_AGAIN};
use super::probe::Prober;
use super::{Settings, socket, wire};
use crate::backend::{Feed, Published, Ticket, Verdict};
use crate::error::{Error, Result};
use crate::instance::{Instance, Key};
use crate::net::{Interfaces, Local};

/// The commands that are taken in one turn, so that packets have theirs: as many as wait at most.
const MAX_COMMANDS: usize = 256;
/// The batches of answers that are taken in before anything else: about 4,000 answers, so that others have their turn too.
const MAX_BATCHES: usize = 64;
/// How often the interfaces are looked at, so that a cable that is plugged in is noticed within a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look at them of a moment ago is good enough for a command.
const LOOK_IS_FRESH: Duration = Duration::from_millis(100);
/// Longer than this task ever sleeps by itself, as it looks at the interfaces once a second.
const SLEPT: Duration = Duration::from_secs(5);
const A_WHILE: Duration = Duration::from_secs(3600);
const OPEN_AGAIN: Duration = Duration::from_millis(500);
/// As long as the end of the application's runtime waits, and some time to spare.
const FAREWELL_TIME: Duration = Duration::from_millis(80);
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// A command of the backend's.
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
    health: Arc<LinkHealth>,
    endpoint: Endpoint,
    port: Port,
    listener: Listener,
    /// Open as long as answers are believed.
    asker: Option<Asker>,
    outbox: Outbox,
    prober: Option<Prober>,
    /// The callers that wait for a goodbye to be sent.
    leavers: Vec<oneshot::Sender<Result<()>>>,
    /// When the interfaces were looked at, if they were.
    looked: Option<Instant>,
    /// When this task was last awake, also by the clock that goes on while a machine sleeps.
    awake: (Instant, SystemTime),
}

/// The sockets on port 5353.
#[derive(Debug)]
enum Port {
    /// Nobody has wanted anything yet.
    Unopened,
    Open,
    /// They can't be opened.
    Taken {
        why: String,
        again: Instant,
    },
}

impl Driver {
    pub(super) fn new(
        settings: Settings,
        commands: mpsc::Receiver<Command>,
        observed: mpsc::UnboundedReceiver<()>,
        feed: Feed,
        counters: Arc<Counters>,
        health: Arc<LinkHealth>,
    ) -> Self {
        let now = Instant::now();
        let (namespace, limits) = (settings.namespace.clone(), settings.limits);
        let seed = fastrand::u64(..);
        Self {
            outbox: Outbox::new(counters.clone(), health.clone()),
            endpoint: Endpoint::new(namespace, limits, feed.clone(), counters.clone(), seed, now),
            listener: Listener::new(&wire::type_of(&settings.namespace)),
            prober: settings.probe.map(|every| Prober::new(every, now)),
            settings,
            commands,
            closes: None,
            observed,
            feed,
            counters,
            health,
            port: Port::Unopened,
            asker: None,
            leavers: Vec::new(),
            looked: None,
            awake: (now, SystemTime::now()),
        }
    }

    /// Runs until it is told to close, or nobody is left to tell it anything.
    pub(super) async fn run(mut self) {
        loop {
            self.act(Instant::now());
            if let Some(reply) = self.closes.take() {
                let result = self.close().await;
                // A caller that no longer waits need not know.
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
                    self.endpoint.read(now);
                    // The first question is on its way while the port is opened: others who are heard in between answer
                    // the next.
                    self.ask();
                    self.open(now);
                }
                heard = self.listener.hear() => {
                    let now = Instant::now();
                    for heard in heard {
                        if !heard.is_from_another_host && !heard.is_direct {
                            self.health.note_heard(heard.link);
                        }
                        self.endpoint.handle_heard(heard, now);
                    }
                }
                answers = hear_answers(&mut self.asker) => self.take_answers(answers),
                finding = find(&mut self.prober) => {
                    if let Some((label, is_reachable)) = finding {
                        self.endpoint.handle_probe(&label, is_reachable);
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Takes a command, and what else is there: what many register at once is announced together.
    fn take_commands(&mut self, first: Command) {
        let now = Instant::now();
        self.look_again(now);
        self.open(now);
        self.take_command(first, now);
        for _ in 1..MAX_COMMANDS {
            if self.closes.is_some() {
                return;
            }
            match self.commands.try_recv() {
                Ok(command) => self.take_command(command, now),
                Err(_) => return,
            }
        }
    }

    fn take_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Close(reply) => self.closes = Some(reply),
            Command::Publish {
                instance,
                replaces,
                reply,
            } => match &self.port {
                Port::Taken { why, .. } => {
                    // A caller that no longer waits need not know.
                    drop(reply.send(Err(Error::unavailable("mdns", why.as_str()))));
                }
                Port::Open | Port::Unopened => self.endpoint.publish(instance, replaces, reply, now),
            },
            Command::Withdraw { ticket, reply } => {
                self.endpoint.withdraw(ticket, now);
                self.leavers.push(reply);
            }
            Command::Verify { key, reply } => self.endpoint.verify(&key, reply, now),
        }
    }

    fn take_answers(&mut self, answers: Vec<Answer>) {
        let now = Instant::now();
        for answer in answers {
            self.endpoint.handle_answer(answer, now);
        }
    }

    /// Has done what is due, and sends what there is to send.
    fn act(&mut self, now: Instant) {
        // Answers that have come count, though others had their turn before them: a host that has answered is not asked again.
        for _ in 0..MAX_BATCHES {
            let Some(answers) = self.asker.as_mut().and_then(|asker| asker.hear().now_or_never()) else {
                break;
            };
            self.take_answers(answers);
        }
        match &self.port {
            Port::Open => {
                if self.note_awake(now, SystemTime::now()) {
                    self.endpoint.handle_wake(now);
                }
                if self.looked.is_none_or(|at| now - at >= LOOK_EVERY) {
                    self.look(now);
                }
            }
            Port::Taken { again, .. } if *again <= now => self.open(now),
            Port::Taken { .. } | Port::Unopened => {}
        }
        let probes = self.prober.as_mut().filter(|prober| prober.next_round() <= now);
        if let Some(prober) = probes {
            prober.begin_round(now, self.endpoint.probed());
        }
        self.endpoint.handle_timeout(now);
        self.ask();
        self.send(now);
    }

    fn next_wake(&self) -> Instant {
        let looks = self.looked.unwrap_or(self.awake.0) + LOOK_EVERY;
        let next = match &self.port {
            Port::Open => Some(looks),
            Port::Taken { again, .. } => Some(*again),
            Port::Unopened => None,
        };
        let all = [
            next,
            (!self.outbox.is_empty()).then(|| Instant::now() + SEND_AGAIN),
            self.endpoint.poll_timeout(),
            self.prober.as_ref().map(Prober::next_round),
        ];
        all.into_iter().flatten().min().unwrap_or(looks + A_WHILE)
    }

    /// Opens the port, where that is not done.
    fn open(&mut self, now: Instant) {
        match &self.port {
            Port::Open => return,
            Port::Taken { again, .. } if *again > now => return,
            Port::Taken { .. } | Port::Unopened => {}
        }
        match socket::check_port() {
            Ok(()) => {
                self.port = Port::Open;
                self.awake = (now, SystemTime::now());
                self.listener
                    .follow(self.endpoint.local().interfaces(), &self.counters);
                self.endpoint.open(now);
            }
            Err(error) => {
                let why = format!("UDP port 5353 can't be opened: {error}");
                if matches!(self.port, Port::Unopened) {
                    tracing::warn!("can't start mDNS: {why}; trying again");
                    self.endpoint.tell_closed(&why);
                }
                let again = now + OPEN_AGAIN;
                self.port = Port::Taken { why, again };
            }
        }
    }

    /// Looks at this machine's interfaces unless it has done so a moment ago.
    fn look_again(&mut self, now: Instant) {
        if self.looked.is_none_or(|at| now - at >= LOOK_IS_FRESH) {
            self.look(now);
        }
    }

    /// Looks at this machine's interfaces.
    fn look(&mut self, now: Instant) {
        self.looked = Some(now);
        let Ok(interfaces) = Interfaces::read() else {
            // Where they can't be read, none of them is known to be down.
            return;
        };
        let interfaces = interfaces.used(&self.settings.interfaces);
        let is_open = matches!(self.port, Port::Open);
        let is_same = interfaces == *self.endpoint.local().interfaces();
        if is_open && (!is_same || self.listener.is_deaf()) {
            self.listener.follow(&interfaces, &self.counters);
        }
        if is_same {
            return;
        }
        // The next questions are asked on the links that there are now.
        self.asker = None;
        self.health.retain(|link| {
            let mut of_link = interfaces
                .iter()
                .filter(|interface| interface.index == link.index);
            of_link.any(|interface| {
                interface
                    .addresses
                    .iter()
                    .any(|(ip, _)| ip.is_ipv4() == link.is_ipv4)
            })
        });
        let was_in_outage = self.endpoint.is_in_outage();
        self.endpoint.handle_links(Local::of_interfaces(interfaces), now);
        if was_in_outage
            && !self.endpoint.is_in_outage()
            && let Some(prober) = &mut self.prober
        {
            prober.forget_failures();
        }
    }

    /// Notes that this task is awake. Returns whether it, or the whole machine, was stopped for longer than it ever sleeps by
    /// itself.
    fn note_awake(&mut self, now: Instant, wall: SystemTime) -> bool {
        let (then, wall_then) = std::mem::replace(&mut self.awake, (now, wall));
        has_slept(now - then, wall_then, wall)
    }

    /// Asks what is to be asked from ports of its own.
    fn ask(&mut self) {
        while let Some(ask) = self.endpoint.poll_ask() {
            let interfaces = self.endpoint.local().interfaces();
            let namespace = &self.settings.namespace;
            let asker = self
                .asker
                .get_or_insert_with(|| Asker::open(interfaces, &wire::type_of(namespace)));
            let sent = asker.ask(&ask);
            self.endpoint.note_sent(&ask, sent);
        }
        if !self.endpoint.is_asking() {
            self.asker = None;
        }
    }

    /// Sends what is to be sent from port 5353.
    fn send(&mut self, now: Instant) {
        self.outbox.send(&mut self.endpoint, &mut self.listener, now);
        if !self.outbox.has_multicast() {
            for reply in self.leavers.drain(..) {
                // A caller that no longer waits need not know.
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// Says goodbye for all, and waits until that was sent twice.
    async fn close(&mut self) -> Result<()> {
        let now = Instant::now();
        let ends = now + CLOSE_TIME;
        let left = self.endpoint.withdraw_all(now);
        loop {
            let now = Instant::now();
            self.endpoint.handle_timeout(now);
            self.send(now);
            let is_done = self.endpoint.has_said_goodbye() && !self.outbox.has_multicast();
            if is_done || now >= ends {
                self.feed.close();
                return match is_done {
                    true => Ok(()),
                    false => Err(Error::Incomplete {
                        left: format!("{left} goodbyes"),
                        source: None,
                    }),
                };
            }
            tokio::time::sleep_until(self.next_wake().min(ends)).await;
        }
    }
}

impl Drop for Driver {
    /// The runtime has ended before the registry was closed: says goodbye all the same.
    fn drop(&mut self) {
        self.feed.close();
        if std::thread::panicking() {
            return;
        }
        let ends = Instant::now() + FAREWELL_TIME;
        self.endpoint.withdraw_all(Instant::now());
        loop {
            let now = Instant::now();
            self.endpoint.handle_timeout(now);
            self.send(now);
            if !self.outbox.has_multicast() || now >= ends {
                return;
            }
            std::thread::sleep(SEND_AGAIN);
        }
    }
}

/// Whether so much more time has passed than this task ever sleeps, by one of the clocks. Where the wall's clock was set back,
/// nobody has slept.
pub(crate) fn has_slept(passed: Duration, wall_then: SystemTime, wall: SystemTime) -> bool {
    passed.max(wall.duration_since(wall_then).unwrap_or_default()) > SLEPT
}

/// The answers to questions of our own.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_process_and_a_sleeping_machine_are_noticed_and_a_clock_that_is_set_back_is_not() {
        let (second, wall) = (Duration::from_secs(1), SystemTime::now());
        assert!(!has_slept(second, wall, wall + second));
        // A machine that sleeps stops the one clock, a process that is stopped none.
        assert!(has_slept(second, wall, wall + 99 * second));
        assert!(has_slept(47 * second, wall, wall + 47 * second));
        assert!(!has_slept(second, wall, wall - 500 * second));
    }
}
