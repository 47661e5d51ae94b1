//! The task that claims names, and tells a daemon of mdns-sd what to publish.
//!
//! A daemon keeps what strangers say without a bound, so that is counted, and the daemon is replaced where it is too much.

use std::collections::HashMap;
use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::active::{Active, Published};
use super::claim::{Claim, Reader, Said};
use super::daemon::Daemon;
use super::{AdvertisedName, Command, Owner, Wanted};
use crate::backend::mdns::{Heard, Kind, Links, Sockets};
use crate::backend::timer::sleep_until;
use crate::dns_sd::name::Name;
use crate::instance::escaped;
use crate::net::{Interfaces, Selection};

/// A goodbye is repeated by then, and the daemon has nothing left to say.
const ENDS_AFTER: Duration = Duration::from_millis(300);
/// How often what the daemon keeps is counted, and the interfaces are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The records of others, and the timers for them, that the daemon may keep.
const MAX_KEPT: i64 = 20_000;
/// A daemon is replaced after this at the earliest, and each further time after twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How often a service is announced.
pub(super) const ANNOUNCEMENTS: u32 = 2;
/// A service is announced a second time after this (RFC 6762, 8.3): the daemon forgets that for a name with capital letters.
const ANNOUNCED_AGAIN: Duration = Duration::from_secs(1);
/// The last number that a name gets; with it a name of the greatest length is still a label.
const LAST_NUMBER: u32 = 999;
/// How long a name is not asked for again that somebody else has: as long as an SRV record lives.
const TAKEN_FOR: Duration = Duration::from_secs(120);
/// Names of others that are known to be taken, at most.
const MAX_TAKEN: usize = 1000;

/// The daemon and the sockets, which are there while something is published.
struct Open {
    daemon: Daemon,
    /// By which names are claimed.
    sockets: Sockets<Reader>,
    interfaces: Interfaces,
    looked: Instant,
    /// When there was nothing to publish any more.
    idle_since: Option<Instant>,
}

pub(super) struct Task {
    interfaces: Selection,
    open: Option<Open>,
    active: Vec<Active>,
    /// Full names that others had at this time.
    taken: HashMap<Name, Instant>,
    /// When the daemon was replaced last, and how long it is not replaced again after that.
    replaced: Instant,
    pause: Duration,
    /// When it is tried again to start one.
    retry_at: Option<Instant>,
}

impl Task {
    pub(super) fn new(interfaces: Selection) -> Self {
        Self {
            interfaces,
            open: None,
            active: Vec::new(),
            taken: HashMap::new(),
            replaced: Instant::now(),
            pause: FIRST_PAUSE,
            retry_at: None,
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let wake = self.next_wake();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Set { owner, wanted, done }) => {
                        self.set(&owner, wanted).await;
                        // Nobody may wait for it.
                        let _ = done.send(());
                    }
                    Some(Command::Close(done)) => {
                        self.close().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.close().await,
                },
                heard = hear(&mut self.open) => self.take_heard(heard).await,
                () = sleep_until(wake) => {}
            }
            self.act(Instant::now()).await;
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let Some(open) = &self.open else {
            return self.retry_at;
        };
        let of_active = self.active.iter().flat_map(|active| {
            let again = match active.published {
                Published::Yes { next, .. } => next,
                Published::Failed { again } if active.claim.is_held() => Some(again),
                Published::No | Published::Failed { .. } => None,
            };
            [active.claim.next(), again]
        });
        let idle_ends = open.idle_since.map(|since| since + ENDS_AFTER);
        let all = of_active.chain([idle_ends, Some(open.looked + LOOK_EVERY)]);
        all.flatten().min()
    }

    /// Does what is due.
    async fn act(&mut self, now: Instant) {
        let idle_since = self.open.as_ref().and_then(|open| open.idle_since);
        if idle_since.is_some_and(|since| since + ENDS_AFTER <= now) {
            self.close().await;
        }
        for at in 0..self.active.len() {
            let active = &mut self.active[at];
            if let Some(open) = &self.open {
                active
                    .claim
                    .poll(now, |probe| open.sockets.send(probe, Links::All));
            }
            let left = match active.published {
                Published::No if active.claim.is_held() => None,
                Published::Failed { again } if active.claim.is_held() && again <= now => None,
                Published::Yes { next, left } if next.is_some_and(|next| next <= now) => Some(left),
                _ => continue,
            };
            let is_taken = self.register(at).await;
            let announced = |left: u32| Published::Yes {
                next: (left > 0).then(|| now + ANNOUNCED_AGAIN),
                left,
            };
            self.active[at].published = match (is_taken, left) {
                (true, None) => announced(ANNOUNCEMENTS - 1),
                (true, Some(left)) => announced(left.saturating_sub(1)),
                (false, None) => Published::Failed {
                    again: now + LOOK_EVERY,
                },
                (false, Some(left)) => Published::Yes {
                    next: Some(now + LOOK_EVERY),
                    left,
                },
            };
            if is_taken && left.is_none() {
                self.note_published(at);
            }
        }
        let looks_at = self
            .open
            .as_ref()
            .map(|open| open.looked + LOOK_EVERY)
            .or(self.retry_at);
        if looks_at.is_some_and(|at| at <= now) {
            self.look(now).await;
        }
    }

    /// Publishes these services of an owner, and no others.
    async fn set(&mut self, owner: &Owner, wanted: Vec<Wanted>) {
        let is_gone = |active: &Active| {
            active.owner.id == owner.id && !wanted.iter().any(|wanted| wanted.is_same_service(&active.wanted))
        };
        let (gone, stays): (Vec<_>, Vec<_>) = std::mem::take(&mut self.active).into_iter().partition(is_gone);
        self.active = stays;
        for active in gone {
            self.unregister(&active).await;
        }
        for wanted in wanted {
            let is_same =
                |active: &Active| active.owner.id == owner.id && active.wanted.is_same_service(&wanted);
            match self.active.iter().position(is_same) {
                Some(at) if self.active[at].wanted == wanted => {}
                Some(at) => {
                    let active = &mut self.active[at];
                    active.claim.set_data(wanted.strings(), wanted.port);
                    active.wanted = wanted;
                    self.active[at].announce_again();
                }
                None => self.add(owner, wanted),
            }
        }
        if let Some(open) = &mut self.open {
            open.idle_since = self.active.is_empty().then(Instant::now);
        }
        self.tell_names(owner);
    }

    fn add(&mut self, owner: &Owner, wanted: Wanted) {
        self.open(Instant::now());
        let host = format!("hereabouts-{:08x}", fastrand::u32(..));
        let target = Name::of([&*host, "local"]);
        let full = self.free_name(&wanted);
        let claim = Claim::new(full, wanted.strings(), target, wanted.port, Instant::now());
        self.active.push(Active {
            owner: owner.clone(),
            wanted,
            host: format!("{host}.local."),
            claim,
            published: Published::No,
            is_told: false,
        });
    }

    /// The name to ask for: the first that no other one is known to have.
    fn free_name(&self, wanted: &Wanted) -> Name {
        let advertisement = &wanted.advertisement;
        let full = |name: &str| Name::of_service(name, advertisement.service_type());
        let is_free = |full: &Name| {
            let is_own = self.active.iter().any(|active| active.claim.full() == full);
            let is_taken = self.taken.get(full).is_some_and(|at| at.elapsed() < TAKEN_FOR);
            !is_own && !is_taken
        };
        let numbered = (2..=LAST_NUMBER).map(|n| full(&format!("{} ({n})", advertisement.name())));
        let mut all = [full(advertisement.name())].into_iter().chain(numbered);
        // Where all are taken, some may be free again.
        all.find(is_free).unwrap_or_else(|| full(advertisement.name()))
    }

    async fn take_heard(&mut self, heard: Vec<Heard<Said>>) {
        let now = Instant::now();
        for Heard { message, .. } in heard {
            for at in 0..self.active.len() {
                if self.active[at].claim.handle(&message, now) {
                    self.rename(at, now).await;
                }
            }
        }
    }

    /// Takes another name for a service, since somebody else on the link has this one.
    async fn rename(&mut self, at: usize, now: Instant) {
        if self.taken.len() >= MAX_TAKEN {
            self.taken.clear();
            self.pause = FIRST_PAUSE;
        }
        self.taken.insert(self.active[at].claim.full().clone(), now);
        if self.active[at].is_published() {
            // The other one announces itself again, as its own record is said to end (RFC 6762, 9).
            self.unregister(&self.active[at]).await;
        }
        let full = self.free_name(&self.active[at].wanted);
        let active = &mut self.active[at];
        let [before, after] = [active.claim.full(), &full].map(|name| name.labels().swap_remove(0));
        tracing::warn!(
            "\"{}\" {} is there already; trying \"{}\"",
            escaped(&before),
            active.wanted.advertisement.service_type(),
            escaped(&after)
        );
        active.claim.rename(full, now);
        active.published = Published::No;
        self.tell_names(&self.active[at].owner);
    }

    /// Has the daemon announce a service. Returns whether it does.
    async fn register(&mut self, at: usize) -> bool {
        let Some(open) = &self.open else { return false };
        let active = &mut self.active[at];
        let name = active.name();
        let registered = open.daemon.register(&active.wanted, &name, &active.host).await;
        if let Err(error) = &registered
            && !std::mem::replace(&mut active.is_told, true)
        {
            let why = error.to_string();
            tracing::warn!("can't publish \"{}\": {}", escaped(&name), escaped(&why));
        }
        registered.is_ok()
    }

    async fn unregister(&self, active: &Active) {
        if let Some(open) = &self.open
            && active.is_published()
        {
            open.daemon.unregister(active.claim.full()).await;
        }
    }

    fn note_published(&self, at: usize) {
        let active = &self.active[at];
        let kind = active.wanted.advertisement.service_type();
        tracing::info!("published \"{}\" {kind}", escaped(&active.name()));
        self.tell_names(&active.owner);
    }

    fn tell_names(&self, owner: &Owner) {
        let of_owner = self.active.iter().filter(|active| active.owner.id == owner.id);
        let names = of_owner.map(|active| AdvertisedName {
            name: active.is_published().then(|| active.name()),
            ..active.wanted.as_unnamed()
        });
        owner.names.send_replace(names.collect());
    }

    /// Starts the daemon, and opens the sockets, where that is not done. Services of an earlier one are published again: peers
    /// that have heard its goodbye take a service back within the second for which that is not believed (RFC 6762, 10.1).
    fn open(&mut self, now: Instant) {
        if self.open.is_some() {
            return;
        }
        let daemon = match Daemon::start() {
            Ok(daemon) => daemon,
            Err(error) => {
                let why = error.to_string();
                tracing::warn!("can't publish DNS-SD services yet: {}", escaped(&why));
                self.retry_at = Some(now + LOOK_EVERY);
                return;
            }
        };
        self.retry_at = None;
        let mut open = Open {
            daemon,
            sockets: Sockets::new(Reader, Kind::Group),
            interfaces: Interfaces::default(),
            looked: now,
            idle_since: None,
        };
        open.follow(&self.interfaces);
        self.open = Some(open);
        for active in &mut self.active {
            active.announce_again();
        }
    }

    /// Follows the interfaces, and replaces a daemon that keeps too much, or does not answer.
    async fn look(&mut self, now: Instant) {
        let Some(open) = &mut self.open else {
            // The last try to start it has failed.
            self.retry_at = None;
            if !self.active.is_empty() {
                self.open(now);
            }
            return;
        };
        open.looked = now;
        if open.follow(&self.interfaces) {
            // Somebody may have the names on the links that are there now (RFC 6762, 8).
            for active in &mut self.active {
                active.claim.probe_again(now);
                active.announce_again();
            }
            return;
        }
        let kept = open.daemon.kept().await;
        if kept.is_some_and(|kept| kept <= MAX_KEPT) || now < self.replaced + self.pause {
            return;
        }
        tracing::debug!("the daemon of mdns-sd keeps {kept:?} records of others: replacing it");
        (self.replaced, self.pause) = (now, (self.pause * 2).min(LONGEST_PAUSE));
        self.end_daemon().await;
        if !self.active.is_empty() {
            self.open(now);
        }
    }

    /// Says goodbye for all that is published, and ends.
    async fn close(&mut self) {
        self.end_daemon().await;
        // Others may have gone, when there is something to publish again.
        self.taken.clear();
    }

    async fn end_daemon(&mut self) {
        if let Some(open) = self.open.take() {
            open.daemon.shut_down().await;
        }
    }
}

impl Drop for Task {
    /// With the runtime: says goodbye all the same.
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.daemon.shut_down_now();
        }
    }
}

impl Open {
    /// Follows the interfaces. Returns whether they have changed.
    fn follow(&mut self, selection: &Selection) -> bool {
        let Ok(interfaces) = Interfaces::read() else {
            // Where they can't be read, none of them is known to have changed.
            return false;
        };
        let used = interfaces.used(selection);
        let has_changed = used != self.interfaces;
        self.sockets.follow(&used);
        self.daemon.follow(&used);
        self.interfaces = used;
        has_changed
    }
}

async fn hear(open: &mut Option<Open>) -> Vec<Heard<Said>> {
    match open {
        Some(open) => poll_fn(|context| open.sockets.poll_hear(context)).await,
        None => std::future::pending().await,
    }
}
