//! The publications of this registry on the LAN: each with its label, its place and its
//! pace.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::proto::responder::{Place, Service, strings};
use super::wire;
use crate::backend::{Lost, Published, Ticket};
use crate::error::{Error, Result};
use crate::instance::{Instance, Namespace, State};
use crate::net::{Audience, Local};

/// One publication.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) label: Arc<str>,
    uuid: String,
    /// The strings of its TXT record.
    text: Box<[u8]>,
    pub(super) instance: Arc<Instance>,
    pub(super) ticket: Ticket,
    place: Place,
    lost: Option<oneshot::Sender<Lost>>,
    waiting: Option<oneshot::Sender<Result<Published>>>,
    hears: Option<oneshot::Receiver<Lost>>,
    /// When it is looked at again: sent once more, given up, or sent at last.
    pub(super) due: Option<Instant>,
    gives_up: Instant,
    /// When updates were sent within the last minute.
    updates: VecDeque<Instant>,
}

/// The next step of a publication that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Send,
    GiveUp,
    Nothing,
}

impl Publication {
    pub(super) fn new(
        instance: Arc<Instance>,
        ticket: Ticket,
        local: &Local,
        namespace: &Namespace,
        now: Instant,
    ) -> Result<Self> {
        let uuid = uuid::Uuid::new_v4().simple().to_string();
        let (lost, hears) = oneshot::channel();
        Ok(Self {
            label: wire::label(instance.service(), &uuid).into(),
            uuid,
            text: text(&instance, namespace)?,
            place: place(&instance, local)?,
            instance,
            ticket,
            lost: Some(lost),
            hears: Some(hears),
            waiting: None,
            due: None,
            gives_up: now,
            updates: VecDeque::new(),
        })
    }

    /// Changes what is published. Whether it may be sent now: on the LAN at most ten updates a
    /// minute go out (RFC 6762, 8.4), draining excepted; otherwise it is due later.
    pub(super) fn update(
        &mut self,
        instance: Arc<Instance>,
        ticket: Ticket,
        local: &Local,
        namespace: &Namespace,
        now: Instant,
    ) -> Result<bool> {
        let text = text(&instance, namespace)?;
        self.place = place(&instance, local)?;
        self.text = text;
        let (lost, hears) = oneshot::channel();
        self.lost = Some(lost);
        self.hears = Some(hears);
        self.ticket = ticket;
        self.instance = instance;
        while self.updates.front().is_some_and(|at| now - *at >= MINUTE) {
            self.updates.pop_front();
        }
        if self.updates.len() < UPDATES_A_MINUTE || self.instance.state() == State::Draining {
            self.updates.push_back(now);
            return Ok(true);
        }
        self.due = self.updates.front().map(|at| *at + MINUTE);
        Ok(false)
    }

    /// It is being sent, and `reply` waits for that.
    pub(super) fn await_sent(&mut self, reply: oneshot::Sender<Result<Published>>, now: Instant) {
        self.waiting = Some(reply);
        self.due = Some(now + RESEND_AFTER);
        self.gives_up = now + GIVE_UP_AFTER;
    }

    /// It was sent on at least one interface. Returns whether somebody waited for that and is
    /// still there.
    pub(super) fn sent(&mut self) -> bool {
        let Some(reply) = self.waiting.take() else {
            return false;
        };
        self.due = None;
        self.answer(reply)
    }

    /// Answers that it is published. Returns whether somebody was there to hear it.
    pub(super) fn answer(&mut self, reply: oneshot::Sender<Result<Published>>) -> bool {
        let Some(hears) = self.hears.take() else {
            return false;
        };
        let lost = async { hears.await.unwrap_or(Lost::Gone(Error::Closed)) };
        reply.send(Ok(Published::new(self.ticket, lost))).is_ok()
    }

    /// Takes what is to be done with it now, as it is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Due {
        match self.due {
            Some(due) if due <= now => {}
            _ => return Due::Nothing,
        }
        if self.waiting.is_none() {
            // An update that had to wait.
            self.due = None;
            self.updates.push_back(now);
            return Due::Send;
        }
        if now >= self.gives_up {
            return Due::GiveUp;
        }
        self.due = Some(now + RESEND_AFTER);
        Due::Send
    }

    /// It could not be published.
    pub(super) fn failed(&mut self, error: Error) {
        if let Some(reply) = self.waiting.take() {
            // A caller that no longer waits need not know.
            let _ = reply.send(Err(error));
        }
    }

    /// It is lost.
    pub(super) fn lose(&mut self, how: Lost) {
        if let Some(lost) = self.lost.take() {
            // An owner that no longer listens need not know.
            let _ = lost.send(how);
        }
    }

    /// The service as it is published.
    pub(super) fn service(&self) -> Service {
        let listen = self.instance.listen();
        let first = self.instance.addresses().first();
        let port = listen.map(|l| l.port()).or_else(|| first.map(|a| a.port()));
        Service {
            label: self.label.clone(),
            host: format!("{}.local.", self.uuid),
            port: port.unwrap_or_default(),
            place: self.place,
            text: self.text.clone(),
        }
    }

    /// The service in the state that is announced before the goodbye, in which nobody picks it.
    pub(super) fn last_words(&self, namespace: &Namespace) -> Service {
        let next = self.instance.generation().next_revision();
        let mut draining = Instance::clone(&self.instance).with_generation(next);
        let (version, weight) = (draining.version().to_owned(), draining.weight());
        draining.set_read(&version, weight, State::Draining);
        let mut service = self.service();
        if let Ok(text) = text(&draining, namespace) {
            service.text = text;
        }
        service
    }

    /// The instance with the addresses that are published now, where they follow the interfaces.
    pub(super) fn located(&self, local: &Local) -> Instance {
        let instance = Instance::clone(&self.instance);
        match (self.place, instance.listen()) {
            (Place::Interfaces { .. }, Some(listen)) if instance.explicit_addresses().is_empty() => {
                instance.at(local.addresses_of(listen, Audience::Links))
            }
            _ => instance,
        }
    }
}

fn text(instance: &Instance, namespace: &Namespace) -> Result<Box<[u8]>> {
    let too_long = || {
        Error::backend(
            "mdns",
            "an entry of its TXT record would have more than 255 bytes",
        )
    };
    strings(&wire::encode(instance, namespace)).ok_or_else(too_long)
}

fn place(instance: &Instance, local: &Local) -> Result<Place> {
    let listen = instance.listen();
    if !instance.explicit_addresses().is_empty() {
        return Ok(Place::Interfaces { ipv6: true });
    }
    let Some(ip) = listen.and_then(|listen| listen.specific_ip()) else {
        return Ok(Place::Interfaces {
            ipv6: listen.is_none_or(|listen| listen.takes_ipv6()),
        });
    };
    let on_used = local
        .interfaces()
        .iter()
        .any(|interface| interface.addresses.iter().any(|(own, _)| *own == ip));
    // Any address of 127.0.0.0/8 is on the loopback interface.
    let loopback = ip.is_loopback() && local.interfaces().iter().any(|interface| interface.loopback);
    if on_used || loopback {
        return Ok(Place::Address(ip));
    }
    let names: Vec<&str> = local.interfaces().names().collect();
    let why = format!(
        "{} is on no interface in use ({}): bind the server to 0.0.0.0 or [::], or say with HEREABOUTS_ADVERTISE \
         which address to publish",
        SocketAddr::new(ip, listen.map_or(0, |listen| listen.port())),
        names.join(", ")
    );
    Err(Error::backend("mdns", why))
}

const MINUTE: Duration = Duration::from_secs(60);
/// RFC 6762, 8.4.
const UPDATES_A_MINUTE: usize = 10;
/// It could be sent on no interface.
const RESEND_AFTER: Duration = Duration::from_millis(300);
/// Below the registry's own deadline, so that the reason can be told.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::super::proto::message::pairs;
    use super::*;
    use crate::instance::Generation;

    fn publication(now: Instant) -> Publication {
        let instance = Instance::new("greeter", 80).unwrap();
        let (local, namespace) = (Local::default(), Namespace::default());
        Publication::new(Arc::new(instance), Ticket::new(1), &local, &namespace, now).unwrap()
    }

    #[test]
    fn c5_at_most_ten_updates_a_minute_draining_excepted() {
        let start = Instant::now();
        let mut publication = publication(start);
        let local = Local::default();
        let up = publication.instance.clone();
        let draining = Arc::new(Instance::clone(&up).with_state(State::Draining).unwrap());
        let mut update = |instance: &Arc<Instance>, at: u64| {
            let now = start + Duration::from_secs(at);
            publication
                .update(
                    instance.clone(),
                    Ticket::new(2),
                    &local,
                    &Namespace::default(),
                    now,
                )
                .unwrap()
        };
        for second in 0..10 {
            assert!(update(&up, second), "update {second}");
        }
        assert!(!update(&up, 10));
        assert!(update(&draining, 11));
        assert!(update(&up, 72), "the minute is over");
        let late = Instant::clone(&start) + Duration::from_secs(200);
        assert_eq!(
            publication.take_due(late),
            Due::Send,
            "and what had to wait is sent"
        );
    }

    #[test]
    fn an_address_of_no_interface_is_an_error_with_the_remedy() {
        let address: SocketAddr = "203.0.113.9:80".parse().unwrap();
        let instance = Instance::new("greeter", address).unwrap();
        let result = Publication::new(
            Arc::new(instance),
            Ticket::new(1),
            &Local::default(),
            &Namespace::default(),
            Instant::now(),
        );
        let error = result.unwrap_err();
        assert!(!error.is_transient());
        assert!(
            error.in_full().contains("HEREABOUTS_ADVERTISE"),
            "{}",
            error.in_full()
        );
    }

    #[test]
    fn the_last_words_are_draining_with_a_later_generation() {
        let mut publication = publication(Instant::now());
        let instance = Instance::clone(&publication.instance).with_generation(Generation::new(7, 3));
        publication.instance = Arc::new(instance);
        let words = publication.last_words(&Namespace::default());
        let text = pairs(&words.text);
        let has = |key: &str, value: &str| text.contains(&(key, value.as_bytes()));
        assert!(has("st", "draining") && has("g", "7.4"));
    }
}
