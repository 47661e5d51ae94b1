//! The task behind one registration: it publishes, publishes again what was lost, and withdraws.

mod leaving;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::command::{Command, Reply};
use super::core::Shared;
use super::lock::lock;
use super::status::Status;
use crate::backend::Retry;
use crate::backend::{Lost, Published, Ticket};
use crate::error::{Error, Result};
use crate::instance::{Address, Generation, Instance, Key, escaped};

pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    /// The instance as its owner wants it to be published.
    pub(super) wanted: Arc<Mutex<Arc<Instance>>>,
    pub(super) commands: mpsc::Receiver<Command>,
    /// The generation that was published last.
    pub(super) confirmed: Arc<Mutex<Generation>>,
    pub(super) status: Arc<watch::Sender<Status>>,
    /// The services of other types that it is published as.
    #[cfg(feature = "mdns")]
    pub(super) dns_sd: crate::dns_sd::Owner,
}

/// Why a keeper stops keeping.
enum End {
    Left(Option<Reply>),
    Superseded(Arc<Instance>),
}

/// The present publication, and how to try again where there is none.
struct Progress {
    key: Key,
    ticket: Option<Ticket>,
    lost: BoxFuture<'static, Lost>,
    /// When to publish next; none while what is wanted is published.
    due: Option<Instant>,
    retry: Retry,
    waiting: Vec<Reply>,
    last_error: Option<Arc<Error>>,
    was_published: bool,
    began: Instant,
    /// It has taken the id over from an owner whose clock is ahead.
    has_overtaken: bool,
    /// The addresses that were published last, where they are this machine's.
    located: Option<Vec<Address>>,
}

/// The owner's commands while something was being published.
#[derive(Default)]
struct Meanwhile {
    asked: Vec<Reply>,
    end: Option<End>,
}

impl Progress {
    /// Nothing is published yet.
    fn new(key: Key, due: Option<Instant>, was_published: bool) -> Self {
        Self {
            key,
            ticket: None,
            lost: futures_util::future::pending().boxed(),
            due,
            retry: Retry::new(),
            waiting: Vec::new(),
            last_error: None,
            was_published,
            began: Instant::now(),
            has_overtaken: false,
            located: None,
        }
    }
}

impl Keeper {
    /// Keeps the registration until its owner or the registry ends it.
    pub(super) async fn run(mut self) {
        // At first its owner's command says when, so that its reply is to the same publication.
        let (mut due, mut was_published) = (None, false);
        loop {
            let mut progress = Progress::new(self.wanted().key().clone(), due, was_published);
            let end = self.keep(&mut progress).await;
            for reply in progress.waiting.drain(..) {
                let _ = reply.send(Err(match &end {
                    End::Left(_) => Error::Closed,
                    End::Superseded(by) => Error::Superseded { by: by.clone() },
                }));
            }
            match end {
                End::Left(reply) => return self.leave(progress, reply).await,
                End::Superseded(by) => {
                    if !self.yield_to_later(progress, by).await {
                        return;
                    }
                    // One that is back takes nothing over from an owner that is there.
                    (due, was_published) = (Some(Instant::now()), true);
                }
            }
        }
    }

    /// Keeps it published until it is to end.
    async fn keep(&mut self, progress: &mut Progress) -> End {
        let mut local = self.shared.local_changes();
        loop {
            let due = progress.due;
            let wait = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shared.leaving.cancelled() => return End::Left(None),
                command = self.commands.recv() => match command {
                    Some(Command::Publish(reply)) => {
                        progress.waiting.push(reply);
                        progress.due = Some(Instant::now());
                    }
                    Some(Command::Withdraw(reply)) => return End::Left(Some(reply)),
                    None => return End::Left(None),
                },
                lost = &mut progress.lost => {
                    progress.lost = futures_util::future::pending().boxed();
                    match lost {
                        Lost::Superseded(by) => return End::Superseded(by),
                        Lost::Gone(error) => self.lost(progress, error),
                    }
                }
                () = wait => if let Some(end) = self.publish(progress).await {
                    return end;
                },
                Ok(()) = local.changed() => self.relocate(progress),
            }
        }
    }

    /// Publishes again where this machine's addresses have changed. While it has none that others reach, what was
    /// published stays, since nothing better is known.
    fn relocate(&self, progress: &mut Progress) {
        if progress.due.is_some() {
            // Where it could not be published, it may be now; it is with the addresses of then.
            if self.shared.follows_addresses(&self.wanted()) {
                progress.retry.reset();
                progress.due = Some(Instant::now());
            }
            return;
        }
        let Some(published) = &progress.located else {
            return;
        };
        let wanted = self.wanted();
        let located = match self.shared.locate(&wanted) {
            Ok(located) => located,
            Err(error) => {
                let (service, id) = (wanted.service(), wanted.id());
                let why = error.in_full();
                tracing::warn!("{service} {id} stays published as it was: {}", escaped(&why));
                return;
            }
        };
        let is_of_use = |addresses: &[Address]| addresses.iter().any(|address| !address.is_loopback());
        if located.addresses() == published || !is_of_use(located.addresses()) {
            return;
        }
        let local = self.shared.local_now();
        let is_guess = self.shared.advertise.is_none() && !local.has_default_route();
        if is_guess && published.iter().all(|address| local.is_up(address)) {
            // The default route may be back in a moment, as when a DHCP lease is renewed.
            return;
        }
        let shown = located.into_found();
        tracing::info!("the addresses of this machine have changed: publishing {shown} again");
        progress.due = Some(Instant::now());
        self.bump();
    }

    fn lost(&self, progress: &mut Progress, error: Error) {
        let wanted = self.wanted();
        let why = error.in_full();
        tracing::warn!(
            "lost {} {}: {}; publishing it again",
            wanted.service(),
            wanted.id(),
            escaped(&why)
        );
        // The ticket stays: where it is not surely gone, what is published next takes its place.
        progress.due = Some(Instant::now() + progress.retry.next_delay(true));
        self.pending(Arc::new(error));
        self.bump();
    }

    /// Publishes what is wanted. Where it is to end meanwhile, says how.
    async fn publish(&mut self, progress: &mut Progress) -> Option<End> {
        let wanted = self.wanted();
        progress.waiting.retain(|reply| !reply.is_closed());
        let (published, meanwhile) = match self.shared.locate(&wanted) {
            Ok(located) => {
                let located = Arc::new(located);
                let (result, meanwhile) = self.put(&located, progress.ticket).await;
                (result.map(|published| (published, located)), meanwhile)
            }
            Err(error) => (Err(error), Meanwhile::default()),
        };
        if let Some(end) = meanwhile.end {
            if let Ok((Published { ticket, .. }, _)) = published {
                progress.ticket = Some(ticket);
            }
            // None of them: it is to be withdrawn.
            progress.waiting.extend(meanwhile.asked);
            return Some(end);
        }
        self.take_result(progress, &wanted, published);
        if !meanwhile.asked.is_empty() {
            // For them too, as it has changed since.
            progress.waiting.extend(meanwhile.asked);
            progress.due = Some(Instant::now());
        }
        None
    }

    /// Puts it in the backend, and listens to the owner meanwhile, who may no longer want it.
    async fn put(
        &mut self,
        located: &Arc<Instance>,
        replaces: Option<Ticket>,
    ) -> (Result<Published>, Meanwhile) {
        let shared = self.shared.clone();
        let mut publishing = shared.backend.publish(located.clone(), replaces);
        let mut meanwhile = Meanwhile::default();
        let result = loop {
            tokio::select! {
                biased;
                result = &mut publishing => break result,
                () = shared.leaving.cancelled(), if meanwhile.end.is_none() => {
                    meanwhile.end = Some(End::Left(None));
                }
                command = self.commands.recv(), if meanwhile.end.is_none() => match command {
                    Some(Command::Publish(reply)) => {
                        meanwhile.asked.retain(|reply| !reply.is_closed());
                        meanwhile.asked.push(reply);
                    }
                    Some(Command::Withdraw(reply)) => meanwhile.end = Some(End::Left(Some(reply))),
                    None => meanwhile.end = Some(End::Left(None)),
                },
            }
        };
        (result, meanwhile)
    }

    fn take_result(
        &self,
        progress: &mut Progress,
        wanted: &Instance,
        published: Result<(Published, Arc<Instance>)>,
    ) {
        match published {
            Ok((Published { ticket, mut lost, .. }, located)) => {
                progress.ticket = Some(ticket);
                progress.due = None;
                match (&mut lost).now_or_never() {
                    Some(Lost::Superseded(by)) => return self.comes_second(progress, by),
                    Some(lost) => progress.lost = std::future::ready(lost).boxed(),
                    None => progress.lost = lost,
                }
                progress.retry.reset();
                let follows = self.shared.follows_addresses(wanted);
                progress.located = follows.then(|| located.addresses().to_vec());
                self.tell_published(progress, &located);
                for reply in progress.waiting.drain(..) {
                    let _ = reply.send(Ok(()));
                }
            }
            Err(error) => {
                let transient = error.is_transient();
                progress.due = Some(Instant::now() + progress.retry.next_delay(transient));
                if progress.last_error.is_none() {
                    let (service, id) = (wanted.service(), wanted.id());
                    tracing::warn!("can't publish {service} {id} yet: {}", escaped(&error.in_full()));
                }
                let status = if transient {
                    error
                } else {
                    // Nobody has to wait for a deadline; the first one gets the error itself.
                    let name = self.shared.backend.name();
                    let text = error.in_full();
                    let mut errors = std::iter::once(error)
                        .chain(std::iter::repeat_with(|| Error::backend(name, text.clone())));
                    for (reply, error) in progress.waiting.drain(..).zip(&mut errors) {
                        // An owner that no longer waits need not know.
                        let _ = reply.send(Err(error));
                    }
                    Error::backend(name, text.clone())
                };
                let status = Arc::new(status);
                progress.last_error = Some(status.clone());
                self.pending(status);
            }
        }
    }

    /// Resolves a conflict with an owner that was there already and says that it is later. Where it says so by a time that is still to come, the
    /// other's clock is ahead, as that of a process that has crashed may have been; and of a registration
    /// that has just begun it is not true.
    fn comes_second(&self, progress: &mut Progress, by: Arc<Instance>) {
        let is_new = !progress.was_published && progress.began.elapsed() < CLOCKS_APART;
        let is_ahead = by.generation() >= Generation::now_after(Generation::ZERO);
        if !is_new || !is_ahead || progress.has_overtaken || self.commands.is_closed() {
            progress.lost = std::future::ready(Lost::Superseded(by)).boxed();
            return;
        }
        progress.has_overtaken = true;
        progress.due = Some(Instant::now());
        let key = &progress.key;
        tracing::info!(
            "{} {} is there already, by a clock that is ahead; taking it over",
            key.service,
            key.id
        );
        let later = self.shared.claim_after(key, by.generation());
        self.shared.change_overlay(key, |overlay| {
            let mut wanted = lock(&self.wanted);
            overlay.forget(key, wanted.generation());
            *wanted = Arc::new(Instance::clone(&wanted).with_generation(later));
        });
    }

    fn tell_published(&self, progress: &mut Progress, located: &Instance) {
        let with = self.shared.backend.name();
        let shown = located.clone().into_found();
        let (service, id) = (located.service(), located.id());
        if !progress.was_published {
            tracing::info!("registered {shown} with {with}");
        } else if progress.last_error.is_some() || !matches!(*self.status.borrow(), Status::Published) {
            tracing::info!("registered {shown} with {with} again");
        } else {
            tracing::debug!("updated {service} {id} with {with}");
        }
        #[cfg(feature = "mdns")]
        self.shared.dns_sd.publish(&self.dns_sd, located);
        progress.was_published = true;
        progress.last_error = None;
        let addresses = self.shared.local_now().addresses_for(&shown);
        let shown = shown.at(addresses);
        self.shared
            .change_overlay(&progress.key, |o| o.publish(Arc::new(shown)));
        *lock(&self.confirmed) = located.generation();
        let wanted = self.wanted();
        let later = wanted.generation() > located.generation();
        self.status.send_modify(|status| {
            // An update that is late stays so until it is published itself.
            if !(later && matches!(status, Status::Pending { .. })) {
                *status = Status::Published;
            }
        });
        if later {
            // The owner has changed it meanwhile.
            progress.due = Some(Instant::now());
        }
    }

    fn pending(&self, why: Arc<Error>) {
        self.status.send_modify(|status| {
            let since = match status {
                Status::Pending { since, .. } => *since,
                _ => SystemTime::now(),
            };
            *status = Status::Pending {
                since,
                why: Some(why),
            };
        });
    }

    /// A higher revision, so that what is published again goes before what is still cached.
    fn bump(&self) {
        let mut wanted = lock(&self.wanted);
        let next = wanted.generation().next_revision();
        *wanted = Arc::new(Instance::clone(&wanted).with_generation(next));
    }

    fn wanted(&self) -> Arc<Instance> {
        lock(&self.wanted).clone()
    }
}

/// Younger than this, a registration goes before a generation that lies in this host's future. One that
/// waited longer may have been overtaken meanwhile.
const CLOCKS_APART: Duration = Duration::from_secs(2);
