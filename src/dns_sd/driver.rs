//! The task behind a [`DnsSd`](super::DnsSd): it moves packets between the sockets and the querier. It has sockets only while something is
//! browsed or looked for.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Settings;
use super::counters::Counters;
use super::message::{Reader, Response};
use super::name::Name;
use super::querier::Querier;
use super::service::{Service, Services};
use crate::backend::mdns::{Heard, Kind, Links, Sockets, has_slept};
use crate::backend::timer::sleep_until;
use crate::error::{Error, Result};
use crate::instance::ServiceType;
use crate::net::{Interfaces, Local};

/// How often the interfaces are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A command of the application's.
pub(super) enum Command {
    Browse {
        name: Name,
        reply: oneshot::Sender<watch::Receiver<Arc<Services>>>,
    },
    /// To tell the types, once all are known.
    Types(oneshot::Sender<Result<Vec<ServiceType>>>),
    Resolve {
        name: Name,
        reply: oneshot::Sender<Result<Arc<Service>>>,
    },
}

pub(super) struct Driver {
    settings: Settings,
    commands: mpsc::UnboundedReceiver<Command>,
    querier: Querier,
    sockets: Option<Open>,
    types: Option<Types>,
    /// There was an interface that reaches other hosts, also before the sockets were opened last.
    has_reached_others: bool,
    /// Why nothing can be heard.
    trouble: Option<&'static str>,
}

/// The callers that wait for the list of types, and its state.
type Types = (
    Vec<oneshot::Sender<Result<Vec<ServiceType>>>>,
    watch::Receiver<Arc<Services>>,
);

/// The sockets while they are open.
struct Open {
    /// They hear what is said to everybody, and ask everybody.
    group: Sockets<Reader>,
    /// They ask from ports of their own.
    asker: Sockets<Reader>,
    looked: Instant,
    /// When this task was awake last.
    awake: (Instant, SystemTime),
    /// One could not be opened.
    is_deaf: bool,
}

impl Driver {
    pub(super) fn new(
        settings: Settings,
        commands: mpsc::UnboundedReceiver<Command>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            querier: Querier::new(settings.limits, counters, Instant::now()),
            settings,
            commands,
            sockets: None,
            types: None,
            has_reached_others: false,
            trouble: None,
        }
    }

    /// Runs until nobody is left to tell it anything.
    pub(super) async fn run(mut self) {
        loop {
            self.act(Instant::now());
            let wake = match &self.sockets {
                Some(open) => Some(self.querier.poll_timeout().min(open.looked + LOOK_EVERY)),
                None => None,
            };
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command, Instant::now()),
                    None => return,
                },
                (heard, is_unicast) = hear(&mut self.sockets) => {
                    let now = Instant::now();
                    let id = self.querier.id();
                    for Heard { link, is_from_another_host, message, .. } in heard {
                        if !is_unicast || message.id == id {
                            self.querier.handle(&message, link, is_unicast && is_from_another_host, now);
                        }
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    fn take(&mut self, command: Command, now: Instant) {
        if self.sockets.is_none() {
            self.open(now);
        }
        // A caller that no longer waits need not know.
        match command {
            Command::Browse { name, reply } => drop(reply.send(self.querier.browse(name, false, now))),
            Command::Resolve { name, reply } => self.querier.resolve(name, reply, now),
            Command::Types(reply) => {
                let (waiting, _) = self
                    .types
                    .get_or_insert_with(|| (Vec::new(), self.querier.browse(super::types_name(), true, now)));
                waiting.push(reply);
            }
        }
    }

    /// Does what is due, and sends what there is to send.
    fn act(&mut self, now: Instant) {
        let Some(open) = &mut self.sockets else { return };
        let (then, wall_then) = std::mem::replace(&mut open.awake, (now, SystemTime::now()));
        if has_slept(now - then, wall_then, open.awake.1) {
            self.querier.handle_wake(now);
        }
        if now >= open.looked + LOOK_EVERY {
            self.look(now);
        }
        self.querier.handle_timeout(now);
        let is_synced = |(_, state): &mut (_, watch::Receiver<Arc<Services>>)| {
            let state = state.borrow();
            state.is_synced() || state.stale().is_some()
        };
        if let Some((waiting, _)) = self.types.take_if(is_synced) {
            let is_stale = self.trouble.map(|why| why.to_owned());
            for reply in waiting {
                let types = match &is_stale {
                    Some(why) => Err(Error::unavailable("dns-sd", why.clone())),
                    None => Ok(self.querier.types(&super::types_name())),
                };
                // A caller that no longer waits need not know.
                let _ = reply.send(types);
            }
        }
        while let Some(transmit) = self.querier.poll_transmit() {
            if let Some(open) = &self.sockets {
                let sockets = if transmit.is_multicast {
                    &open.group
                } else {
                    &open.asker
                };
                sockets.send(&transmit.bytes, Links::All);
            }
        }
        if self.querier.is_idle() {
            self.sockets = None;
        }
    }

    fn open(&mut self, now: Instant) {
        self.sockets = Some(Open {
            group: Sockets::new(Reader, Kind::Group),
            asker: Sockets::new(Reader, Kind::Unicast),
            looked: now,
            awake: (now, SystemTime::now()),
            is_deaf: true,
        });
        self.look(now);
    }

    /// Looks at this machine's interfaces.
    fn look(&mut self, now: Instant) {
        let Some(open) = &mut self.sockets else { return };
        open.looked = now;
        let Ok(all) = Interfaces::read() else {
            // Where they can't be read, none of them is known to be down.
            return;
        };
        let interfaces = all.used(&self.settings.interfaces);
        let is_same = interfaces == *self.querier.local().interfaces();
        if is_same && !open.is_deaf {
            return;
        }
        let are_open = [open.group.follow(&interfaces), open.asker.follow(&interfaces)];
        open.is_deaf = are_open.contains(&false);
        self.has_reached_others |= interfaces.reach_others();
        // A machine that never had a network finds what runs on itself.
        let is_cut_off = self.has_reached_others && !interfaces.reach_others();
        let trouble = if is_cut_off || interfaces.iter().next().is_none() {
            Some("no usable interface is up")
        } else if open.group.is_empty() {
            Some("UDP port 5353 can't be opened on any interface")
        } else {
            None
        };
        let has_changed = std::mem::replace(&mut self.trouble, trouble) != trouble;
        if !is_same || has_changed {
            let local = Local::of_interfaces(interfaces);
            self.querier.handle_links(local, trouble.map(str::to_owned), now);
        }
    }
}

/// The packets that were heard next, and whether they were answers to a question from a port of its own.
async fn hear(sockets: &mut Option<Open>) -> (Vec<Heard<Response>>, bool) {
    let Some(open) = sockets else {
        return std::future::pending().await;
    };
    tokio::select! {
        heard = poll_fn(|context| open.group.poll_hear(context)) => (heard, false),
        heard = poll_fn(|context| open.asker.poll_hear(context)) => (heard, true),
    }
}
