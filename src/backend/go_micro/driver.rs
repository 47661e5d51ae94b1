//! The task that publishes by announcing and answering, and moves packets between the sockets and the polls.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::message::{self, Message, Reader};
use super::polls::Polls;
use super::wire::{self, SERVICES, Written};
use super::{Counters, GoMicroBuilder};
use crate::backend::feeds::Feeds;
use crate::backend::mdns::{Heard, Kind, LinkId, Links, Sockets};
use crate::backend::{Outage, Published, Ticket};
use crate::error::{Error, Result};
use crate::instance::{Instance, State};
use crate::net::{Interfaces, Selection};

/// How often the interfaces are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When an instance is announced again, after the first time, as go-micro does.
const ANNOUNCED_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// A goodbye is said once more after this, since packets are lost.
const GOODBYE_AGAIN: Duration = Duration::from_millis(100);
/// Answers a second, and at once, at most: a question is answered by a packet for each instance.
const ANSWERS_A_SECOND: f64 = 2000.0;
const ANSWERS_AT_ONCE: f64 = 4000.0;

/// A command of the backend's.
pub(super) enum Command {
    Publish {
        instance: Arc<Instance>,
        replaces: Option<Ticket>,
        reply: oneshot::Sender<Result<Published>>,
    },
    Withdraw {
        ticket: Ticket,
        reply: oneshot::Sender<()>,
    },
    /// Somebody observes.
    Observe,
    Close(oneshot::Sender<()>),
}

/// An instance of ours.
struct Own {
    /// None while it is not up, so that nobody calls it.
    written: Option<Written>,
    /// A host of its own, since its address is withdrawn with it.
    host: String,
}

pub(super) struct Driver {
    interfaces: Selection,
    commands: mpsc::UnboundedReceiver<Command>,
    polls: Polls,
    own: BTreeMap<Ticket, Own>,
    last_ticket: u64,
    /// What is to be announced again, and when.
    announcements: Vec<(Instant, Ticket)>,
    /// Goodbyes that are to be said again.
    goodbyes: Vec<(Instant, Vec<u8>)>,
    open: Option<Open>,
    /// Answers that may be sent.
    budget: (f64, Instant),
}

struct Open {
    group: Sockets<Reader>,
    asker: Sockets<Reader>,
    interfaces: Interfaces,
    looked: Instant,
    is_deaf: bool,
    has_reached_others: bool,
}

impl Driver {
    pub(super) fn new(
        settings: GoMicroBuilder,
        commands: mpsc::UnboundedReceiver<Command>,
        feeds: Arc<Feeds>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            interfaces: settings.interfaces,
            commands,
            polls: Polls::new(feeds, counters, settings.limits),
            own: BTreeMap::new(),
            last_ticket: 0,
            announcements: Vec::new(),
            goodbyes: Vec::new(),
            open: None,
            budget: (ANSWERS_AT_ONCE, Instant::now()),
        }
    }

    /// Runs until it is told to close, or nobody is left to tell it anything.
    pub(super) async fn run(mut self) {
        loop {
            let wake = self.next_wake();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Close(reply)) => {
                        self.say_goodbyes();
                        // A caller that no longer waits need not know.
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.take(command, Instant::now()),
                    None => return,
                },
                heard = hear(&mut self.open) => {
                    let now = Instant::now();
                    for heard in heard {
                        self.take_heard(heard, now);
                    }
                }
                () = sleep_until(wake) => {}
            }
            self.act(Instant::now());
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        let announced = self.announcements.iter().map(|(at, _)| *at);
        let goodbyes = self.goodbyes.iter().map(|(at, _)| *at);
        let all = announced.chain(goodbyes).chain(self.polls.next());
        all.chain([open.looked + LOOK_EVERY]).min()
    }

    fn take(&mut self, command: Command, now: Instant) {
        if self.open.is_none() {
            self.open = Some(Open {
                group: Sockets::new(Reader, Kind::Group),
                asker: Sockets::new(Reader, Kind::Unicast),
                interfaces: Interfaces::default(),
                looked: now,
                is_deaf: true,
                has_reached_others: false,
            });
            self.look(now);
        }
        match command {
            Command::Publish {
                instance,
                replaces,
                reply,
            } => {
                let published = self.publish(&instance, replaces, now);
                // A caller that no longer waits need not know.
                let _ = reply.send(published);
            }
            Command::Withdraw { ticket, reply } => {
                self.withdraw(ticket, now);
                let _ = reply.send(());
            }
            Command::Observe => self.polls.follow(now),
            Command::Close(reply) => drop(reply),
        }
    }

    fn publish(&mut self, instance: &Instance, replaces: Option<Ticket>, now: Instant) -> Result<Published> {
        let is_up = instance.state() == State::Up;
        let written = is_up.then(|| wire::write(instance)).transpose()?;
        let before = replaces.and_then(|replaces| self.own.remove(&replaces));
        let host = match &before {
            Some(before) => before.host.clone(),
            None => format!("hereabouts-{:08x}.{}", fastrand::u32(..), wire::DOMAIN),
        };
        let packet = written
            .as_ref()
            .map(|written| message::announcement(written, &host, false));
        if let Some(packet) = packet.flatten()
            && self.send(&packet) == 0
        {
            if let (Some(before), Some(replaces)) = (before, replaces) {
                self.own.insert(replaces, before);
            }
            return Err(Error::unavailable(
                "mdns",
                "it could not be announced on any interface",
            ));
        }
        if let Some(Own {
            written: Some(gone),
            host,
        }) = before.filter(|_| written.is_none())
        {
            self.say_goodbye(&gone, &host, now);
        }
        self.last_ticket += 1;
        let ticket = Ticket::new(self.last_ticket);
        if written.is_some() {
            self.announcements
                .extend(ANNOUNCED_AGAIN.map(|after| (now + after, ticket)));
        }
        self.own.insert(ticket, Own { written, host });
        // Nothing is lost, as nobody is told of a later owner.
        Ok(Published::new(ticket, std::future::pending()))
    }

    fn withdraw(&mut self, ticket: Ticket, now: Instant) {
        if let Some(Own {
            written: Some(written),
            host,
        }) = self.own.remove(&ticket)
        {
            self.say_goodbye(&written, &host, now);
        }
    }

    fn say_goodbye(&mut self, written: &Written, host: &str, now: Instant) {
        if let Some(goodbye) = message::announcement(written, host, true) {
            self.send(&goodbye);
            self.goodbyes.push((now + GOODBYE_AGAIN, goodbye));
        }
    }

    /// Says goodbye for all.
    fn say_goodbyes(&mut self) {
        for own in std::mem::take(&mut self.own).into_values() {
            let goodbye = own
                .written
                .and_then(|written| message::announcement(&written, &own.host, true));
            if let Some(goodbye) = goodbye {
                self.send(&goodbye);
            }
        }
    }

    /// Sends to everybody. Returns on how many links.
    fn send(&self, packet: &[u8]) -> usize {
        let open = self.open.as_ref();
        open.map_or(0, |open| open.group.send(packet, Links::All))
    }

    fn take_heard(&mut self, heard: Heard<Message>, now: Instant) {
        match heard.message {
            Message::Response(found) => {
                for found in &found {
                    self.polls.take(found, now);
                }
            }
            Message::Query { id, names } => {
                for name in names {
                    self.answer(id, &name, heard.link, heard.from, now);
                }
            }
        }
    }

    /// Answers by unicast, whoever asks: go-micro does not hear other answers.
    fn answer(&mut self, id: u16, asked: &str, link: LinkId, to: SocketAddr, now: Instant) {
        let own = self
            .own
            .values()
            .filter_map(|own| Some((own.written.as_ref()?, &*own.host)));
        let packets: Vec<Option<Vec<u8>>> = if asked == SERVICES {
            let services: BTreeSet<(&str, &str)> =
                own.map(|(written, _)| (&*written.service, LISTED_HOST)).collect();
            let answers = services.into_iter();
            answers
                .map(|(service, host)| message::answer_listed(id, service, host))
                .collect()
        } else {
            let of_service = own.filter(|(written, _)| wire::name_of_service(&written.service) == asked);
            of_service
                .map(|(written, host)| message::answer(id, asked, written, host))
                .collect()
        };
        for packet in packets.into_iter().flatten() {
            if !self.may_answer(now) {
                return;
            }
            if let Some(open) = &self.open
                && let Err(error) = open.group.send_on(link, Some(to), &packet)
            {
                tracing::debug!("can't answer {to}: {error}");
            }
        }
    }

    fn may_answer(&mut self, now: Instant) -> bool {
        let (left, at) = &mut self.budget;
        let more = now.saturating_duration_since(*at).as_secs_f64() * ANSWERS_A_SECOND;
        (*left, *at) = ((*left + more).min(ANSWERS_AT_ONCE), now);
        let may_answer = *left >= 1.0;
        *left -= f64::from(u8::from(may_answer));
        may_answer
    }

    /// Does what is due.
    fn act(&mut self, now: Instant) {
        let announced = take_due(&mut self.announcements, now);
        let own = announced.iter().filter_map(|ticket| self.own.get(ticket));
        let again = own.filter_map(|own| message::announcement(own.written.as_ref()?, &own.host, false));
        let again: Vec<Vec<u8>> = again.collect();
        for packet in again.into_iter().chain(take_due(&mut self.goodbyes, now)) {
            self.send(&packet);
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.looked + LOOK_EVERY <= now)
        {
            self.look(now);
            self.polls.forget_unread(now);
        }
        for name in self.polls.poll(now) {
            if let (Some(open), Some(query)) = (&self.open, message::query(fastrand::u16(..), &name)) {
                open.asker.send(&query, Links::All);
            }
        }
        if self.own.is_empty() && self.polls.is_idle() && self.goodbyes.is_empty() {
            self.open = None;
        }
    }

    /// Looks at this machine's interfaces.
    fn look(&mut self, now: Instant) {
        let Some(open) = &mut self.open else { return };
        open.looked = now;
        let Ok(all) = Interfaces::read() else {
            // Where they can't be read, none of them is known to be down.
            return;
        };
        let interfaces = all.used(&self.interfaces);
        let is_same = interfaces == open.interfaces;
        if is_same && !open.is_deaf {
            return;
        }
        open.is_deaf = !open.group.follow(&interfaces);
        open.asker.follow(&interfaces);
        open.has_reached_others |= interfaces.reach_others();
        let is_cut_off = open.has_reached_others && !interfaces.reach_others();
        open.interfaces = interfaces;
        let why = match () {
            () if is_cut_off => Some("no usable interface is up"),
            () if open.group.is_empty() => Some("UDP port 5353 can't be opened on any interface"),
            () => None,
        };
        let outage = why.map(|why| Outage::now(Error::unavailable("mdns", why)));
        if !is_same || outage.is_some() {
            self.polls.note_links(outage, now);
        }
    }
}

/// Takes out what is due.
fn take_due<T>(all: &mut Vec<(Instant, T)>, now: Instant) -> Vec<T> {
    all.extract_if(.., |(at, _)| *at <= now)
        .map(|(_, what)| what)
        .collect()
}

/// The host in entries of the list of services, whose address is nobody's.
const LISTED_HOST: &str = "hereabouts.micro";

impl Drop for Driver {
    /// The runtime has ended before the registry was closed: says goodbye all the same.
    fn drop(&mut self) {
        self.say_goodbyes();
    }
}

async fn hear(open: &mut Option<Open>) -> Vec<Heard<Message>> {
    let Some(open) = open else {
        return std::future::pending().await;
    };
    tokio::select! {
        heard = poll_fn(|context| open.group.poll_hear(context)) => heard,
        heard = poll_fn(|context| open.asker.poll_hear(context)) => heard,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
