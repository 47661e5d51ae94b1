//! One host's part in multicast DNS, without I/O: it is given packets, the interfaces, what is to be published and the time, and
//! gives packets to send. A [`Driver`](super::driver::Driver) moves them.

mod clock;
mod hearing;
mod links;
mod looks;
mod publishing;
mod silence;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use self::clock::Clock;
use self::looks::Looks;
use self::publishing::Departed;
use self::silence::Silence;
use super::counters::Counters;
use super::look::Links;
use super::proto::LinkId;
use super::proto::message::{self, Question};
use super::proto::querier::Continuous;
use super::proto::responder::{Responder, Service, Transmit};
use super::publication::Publication;
use super::records::Records;
use super::table::Table;
use super::wire;
use crate::backend::{Feed, Limits, Ticket};
use crate::instance::{Instance, Namespace};
use crate::net::Local;

/// One host's part.
pub(super) struct Endpoint {
    namespace: Namespace,
    service_type: String,
    feed: Feed,
    counters: Arc<Counters>,
    /// Whether packets can be sent and heard.
    is_open: bool,
    responder: Responder,
    /// Questions from ports of their own.
    asks: VecDeque<Ask>,
    /// Questions from port 5353.
    questions: VecDeque<Transmit>,
    /// Whether somebody wants to know who is there.
    reads: bool,
    records: Records,
    continuous: Continuous,
    table: Table,
    publications: HashMap<Arc<str>, Publication>,
    tickets: HashMap<Ticket, Arc<str>>,
    /// When each publication that is not at rest is looked at.
    due: BTreeSet<(Instant, Arc<str>)>,
    departed: Departed,
    /// Goodbyes that nobody could hear, to be said when there is a network again.
    unsaid: Vec<Service>,
    next_ticket: u64,
    looks: Looks,
    silence: Silence,
    local: Local,
    /// Whether the interfaces have been told.
    has_links: bool,
    had_network: bool,
    /// No link to other hosts is left of those that were there.
    outage: bool,
    clock: Clock,
}

impl Ask {
    /// Writes it, as many packets as it takes.
    pub(super) fn packets(&self, id: u16, service_type: &str) -> Vec<Vec<u8>> {
        if self.known.is_empty() {
            return message::queries(id, &self.questions, service_type);
        }
        message::query_with_known(id, &self.known, service_type)
    }
}

/// Questions that are to be asked from a port of their own.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) links: Links,
    pub(super) questions: Vec<Question>,
    /// The labels that are known already, where all are asked for.
    pub(super) known: Vec<(Arc<str>, u32)>,
}

impl Endpoint {
    /// One that publishes nothing and wants to know nothing yet.
    pub(super) fn new(
        namespace: Namespace,
        limits: Limits,
        feed: Feed,
        counters: Arc<Counters>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let service_type = wire::type_of(&namespace);
        Self {
            table: Table::new(namespace.clone(), limits, feed.clone(), counters.clone()),
            records: Records::new(limits.instances),
            responder: Responder::new(&service_type, seed, now),
            namespace,
            service_type,
            feed,
            counters,
            is_open: false,
            asks: VecDeque::new(),
            questions: VecDeque::new(),
            reads: false,
            continuous: Continuous::default(),
            publications: HashMap::new(),
            tickets: HashMap::new(),
            due: BTreeSet::new(),
            departed: Departed::default(),
            unsaid: Vec::new(),
            next_ticket: 0,
            looks: Looks::default(),
            silence: Silence::default(),
            local: Local::default(),
            has_links: false,
            had_network: false,
            outage: false,
            clock: Clock::default(),
        }
    }

    /// The next packet to send from port 5353.
    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        // Goodbyes and answers do not wait for questions with many known answers.
        self.responder
            .poll_transmit()
            .or_else(|| self.questions.pop_front())
    }

    /// Whether all goodbyes have been said twice.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.responder.has_said_goodbye()
    }

    pub(super) fn local(&self) -> &Local {
        &self.local
    }

    /// The name of a link, for a person.
    pub(super) fn name_of(&self, link: LinkId) -> String {
        let family = if link.is_ipv4 { "IPv4" } else { "IPv6" };
        let mut interfaces = self.local.interfaces().iter();
        match interfaces.find(|interface| interface.index == link.index) {
            Some(interface) => format!("{} ({family})", interface.name),
            None => format!("interface {} ({family})", link.index),
        }
    }

    /// Whether no link to other hosts is left of those that were there.
    pub(super) fn is_in_outage(&self) -> bool {
        self.outage
    }

    /// The instances of others that are up, for a probe; none while nobody can be reached.
    pub(super) fn probed(&self) -> Vec<(String, Arc<Instance>)> {
        if self.outage {
            Vec::new()
        } else {
            self.table.probed()
        }
    }

    /// Takes in what a probe has found: whether somebody accepts connections there.
    pub(super) fn handle_probe(&mut self, label: &str, is_reachable: bool) {
        // In an outage nobody can be reached, and nobody is gone for that.
        if !self.outage {
            self.table.set_reachable(label, is_reachable);
        }
    }
}
