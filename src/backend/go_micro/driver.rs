//! The task that publishes by announcing and answering, and moves packets between the sockets and the polls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::message::{self, Found, Message};
use super::open::{Open, hear};
use super::polls::Polls;
use super::wire::{self, SERVICES, Written};
use super::{Counters, GoMicroBuilder};
use crate::backend::bucket::Bucket;
use crate::backend::feeds::Feeds;
use crate::backend::mdns::{Heard, LinkId, Links};
use crate::backend::timer::sleep_until;
use crate::backend::{Lost, Outage, Published, Ticket};
use crate::error::{Error, Result};
use crate::instance::{Instance, State};
use crate::net::{Interfaces, Selection};

/// How often the interfaces are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When an instance is announced again, after the first time, as go-micro does.
const ANNOUNCED_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// A goodbye is said once more after this, since packets are lost.
const GOODBYE_AGAIN: Duration = Duration::from_millis(100);
/// Answers to one address, at once and a second, at most: a question is answered by a packet for each instance.
const ANSWERS_AT_ONCE: u32 = 1000;
const ANSWERS_A_SECOND: u32 = 200;
/// The addresses that are answered, at most, before all are forgotten.
const MAX_SOURCES: usize = 1024;
/// The host in entries of the list of services, whose address is nobody's.
const LISTED_HOST: &str = "hereabouts.micro";

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
    /// Tells its owner of a later one.
    lost: oneshot::Sender<Lost>,
    /// A later owner has the id, and so the name.
    is_superseded: bool,
}

pub(super) struct Driver {
    interfaces: Selection,
    commands: mpsc::UnboundedReceiver<Command>,
    polls: Polls,
    own: BTreeMap<Ticket, Own>,
    last_ticket: u64,
    /// The instances that are to be announced again, and when.
    announcements: Vec<(Instant, Ticket)>,
    /// Goodbyes that are to be said again.
    goodbyes: Vec<(Instant, Vec<u8>)>,
    open: Option<Open>,
    /// There was an interface that reaches other hosts, also before the sockets were opened last.
    has_reached_others: bool,
    /// The answers that may be sent to each address.
    budgets: HashMap<IpAddr, Bucket>,
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
            polls: Polls::new(feeds, counters, settings.limits, Instant::now()),
            own: BTreeMap::new(),
            last_ticket: 0,
            announcements: Vec::new(),
            goodbyes: Vec::new(),
            open: None,
            has_reached_others: false,
            budgets: HashMap::new(),
        }
    }

    /// Runs until it is told to close, or nobody is left to tell it anything.
    pub(super) async fn run(mut self) {
        loop {
            let wake = self.next_wake();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Close(reply)) => {
                        self.close().await;
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
            self.open = Some(Open::new(now));
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
        if instance.addresses().is_empty() {
            let why = "this machine has no address at the moment";
            return Err(Error::unavailable("mdns", why));
        }
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
        let gone = before
            .and_then(|before| before.written)
            .filter(|_| written.is_none());
        if let Some(gone) = gone {
            self.say_goodbye(&gone, &host, now);
        }
        self.last_ticket += 1;
        let ticket = Ticket::new(self.last_ticket);
        if let Some(written) = &written {
            self.announcements
                .extend(ANNOUNCED_AGAIN.map(|after| (now + after, ticket)));
            // A later owner of the id answers.
            self.ask(&wire::name_of_service(&written.service));
        }
        let (lost, receiver) = oneshot::channel();
        self.own.insert(
            ticket,
            Own {
                written,
                host,
                lost,
                is_superseded: false,
            },
        );
        let lost = async { receiver.await.unwrap_or(Lost::Gone(Error::Closed)) };
        Ok(Published::new(ticket, lost))
    }

    fn withdraw(&mut self, ticket: Ticket, now: Instant) {
        // A goodbye in the name that a later owner has would be that one's.
        let own = self.own.remove(&ticket).filter(|own| !own.is_superseded);
        if let Some(own) = own
            && let Some(written) = own.written
        {
            self.say_goodbye(&written, &own.host, now);
        }
    }

    fn say_goodbye(&mut self, written: &Written, host: &str, now: Instant) {
        if let Some(goodbye) = message::announcement(written, host, true) {
            self.send(&goodbye);
            self.goodbyes.push((now + GOODBYE_AGAIN, goodbye));
        }
    }

    /// Says goodbye for all. Returns what was said.
    fn say_goodbyes(&mut self) -> Vec<Vec<u8>> {
        let own = std::mem::take(&mut self.own).into_values();
        let own = own.filter(|own| !own.is_superseded);
        let goodbyes = own.filter_map(|own| message::announcement(&own.written?, &own.host, true));
        let goodbyes: Vec<Vec<u8>> = goodbyes.collect();
        for goodbye in &goodbyes {
            self.send(goodbye);
        }
        goodbyes
    }

    /// Says goodbye for all, twice.
    async fn close(&mut self) {
        let again: Vec<Vec<u8>> = self.goodbyes.drain(..).map(|(_, goodbye)| goodbye).collect();
        let all = self.say_goodbyes();
        if again.is_empty() && all.is_empty() {
            return;
        }
        tokio::time::sleep(GOODBYE_AGAIN).await;
        for goodbye in again.iter().chain(&all) {
            self.send(goodbye);
        }
    }

    /// Sends to everybody. Returns on how many links.
    fn send(&self, packet: &[u8]) -> usize {
        let open = self.open.as_ref();
        open.map_or(0, |open| open.group.send(packet, Links::All))
    }

    /// Asks everybody for the pointers of a name.
    fn ask(&self, name: &str) {
        if let (Some(open), Some(query)) = (&self.open, message::query(fastrand::u16(..), name)) {
            open.asker.send(&query, Links::All);
        }
    }

    fn take_heard(&mut self, heard: Heard<Message>, now: Instant) {
        match heard.message {
            Message::Response(found) => {
                for found in &found {
                    if !self.take_own(found) {
                        self.polls.take(found, now);
                    }
                }
            }
            Message::Query { id, names } => {
                for name in names {
                    self.answer(id, &name, heard.link, heard.from, now);
                }
            }
        }
    }

    /// Takes in what is said under a name of ours, and tells the owner of an id of a later one. Returns whether it is our own.
    fn take_own(&mut self, found: &Found) -> bool {
        let is_of_name = |own: &&mut Own| {
            own.written
                .as_ref()
                .is_some_and(|written| written.name == found.name)
        };
        let Some(own) = self.own.values_mut().find(is_of_name) else {
            return false;
        };
        let (Some(written), false) = (&own.written, found.leaves) else {
            // It is another owner that leaves.
            return false;
        };
        if found.strings == written.strings {
            return true;
        }
        if let Ok(by) = wire::read(&found.name, &found.strings, &found.addresses)
            && by.generation() > written.generation
        {
            let (lost, _) = oneshot::channel();
            own.is_superseded = true;
            // An owner that no longer listens need not know.
            let _ = std::mem::replace(&mut own.lost, lost).send(Lost::Superseded(Arc::new(by)));
        }
        false
    }

    /// Answers by unicast, whoever on the link asks: go-micro does not hear other answers.
    fn answer(&mut self, id: u16, asked: &str, link: LinkId, to: SocketAddr, now: Instant) {
        let Some(open) = self.open.as_ref().filter(|open| open.is_on_link(to.ip(), link)) else {
            return;
        };
        let own = self.own.values();
        let own = own.filter_map(|own| Some((own.written.as_ref()?, &*own.host)));
        let answers: Vec<(&Written, &str)> = if asked == SERVICES {
            let mut services = BTreeSet::new();
            own.filter(|(written, _)| services.insert(&written.service))
                .collect()
        } else {
            own.filter(|(written, _)| wire::name_of_service(&written.service) == asked)
                .collect()
        };
        if self.budgets.len() >= MAX_SOURCES {
            self.budgets.clear();
        }
        let budget = self.budgets.entry(to.ip());
        let budget = budget.or_insert_with(|| Bucket::new(ANSWERS_AT_ONCE, ANSWERS_A_SECOND, now));
        for (written, host) in answers {
            if !budget.take(now) {
                return;
            }
            let packet = match asked {
                SERVICES => message::answer_listed(id, &written.service, LISTED_HOST),
                _ => message::answer(id, asked, written, host),
            };
            // The socket of a link does not reach this host itself by its address, but what it sends to everybody is heard here, too.
            let to_one = Some(to).filter(|to| !open.has(to.ip()));
            let sent = packet.map(|packet| open.group.send_on(link, to_one, &packet));
            if let Some(Err(error)) = sent {
                tracing::debug!("can't answer {to}: {error}");
            }
        }
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
            self.ask(&name);
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
        let are_open = [open.group.follow(&interfaces), open.asker.follow(&interfaces)];
        open.is_deaf = are_open.contains(&false);
        self.has_reached_others |= interfaces.reach_others();
        let is_cut_off = self.has_reached_others && !interfaces.reach_others();
        open.interfaces = interfaces;
        let why = match () {
            () if is_cut_off || open.interfaces.iter().next().is_none() => Some("no usable interface is up"),
            () if open.group.is_empty() => Some("UDP port 5353 can't be opened on any interface"),
            () => None,
        };
        let has_changed = std::mem::replace(&mut open.trouble, why) != why;
        if !is_same || has_changed {
            let outage = why.map(|why| Outage::now(Error::unavailable("mdns", why)));
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

impl Drop for Driver {
    /// The runtime has ended before the registry was closed: says goodbye all the same.
    fn drop(&mut self) {
        self.say_goodbyes();
    }
}
