//! The memory backend with one fault, for showing that the suite finds it.

use std::collections::HashMap;
use std::future::{pending, ready};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use hereabouts::conformance::{Support, World};
use hereabouts::{
    Backend, BoxStream, Error, Instance, InstanceId, Lost, Published, Result, Scope, ServiceName, Ticket,
    Update, async_trait, memory,
};
use tokio_util::sync::CancellationToken;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: it takes its time.
    Slow,
    /// `publish` returns before it is published.
    CommitsLate,
    /// It says `Synced` before it has told what is there.
    SyncsTooEarly,
    /// In an outage, `publish` never returns.
    HangsInOutage,
    /// It says once more what has left.
    EchoesWhatLeft,
    /// It does not tell the owner that an instance was lost.
    NoticesNoLoss,
    /// `withdraw` does nothing.
    ForgetsToWithdraw,
    /// An update is accepted, and does nothing.
    LosesUpdates,
    /// An update is a withdrawal, and a little later a publication.
    UpdatesWithAGap,
    /// After an outage all is removed and comes again.
    RepeatsAllAfterOutage,
    /// In an outage it says that nothing is there.
    SaysEmptyInOutage,
    /// It drops what an observer does not read at once.
    DropsForSlowReaders,
    /// A bad record ends every observation.
    StopsAtGarbage,
    /// `withdraw` takes away whatever has the name, whoever put it.
    WithdrawsByName,
    /// Of two owners of one id, the earlier wins.
    KeepsTheEarlier,
    /// `close` does nothing.
    StaysOpen,
    /// It never says `Synced`.
    NeverSynced,
    /// In an outage a new peer can't be made, and this takes for ever.
    HangsToJoin,
}

/// What all peers have put.
type AllPublished = Arc<Mutex<HashMap<(ServiceName, InstanceId), Arc<Instance>>>>;

/// A world of backends with one fault.
pub(crate) struct FaultyWorld {
    fault: Fault,
    world: memory::World,
    outage: AtomicBool,
    garbage: CancellationToken,
    published: AllPublished,
}

impl FaultyWorld {
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            fault,
            world: memory::World::new(),
            outage: AtomicBool::new(false),
            garbage: CancellationToken::new(),
            published: Arc::default(),
        }
    }
}

#[async_trait]
impl World for FaultyWorld {
    async fn join(&self) -> Result<Box<dyn Backend>> {
        if self.fault == Fault::HangsToJoin && self.outage.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        Ok(Box::new(Faulty {
            fault: self.fault,
            inner: Arc::new(self.world.join()),
            world: self.world.clone(),
            garbage: self.garbage.clone(),
            published: self.published.clone(),
            tickets: Mutex::default(),
        }))
    }

    async fn outage(&self, begins: bool) -> Result<Support> {
        self.outage.store(begins, Ordering::Relaxed);
        self.world.outage(begins);
        Ok(Support::Done)
    }

    async fn erase(&self, service: &ServiceName, id: &InstanceId) -> Result<Support> {
        self.world.erase(service, id);
        Ok(Support::Done)
    }

    async fn put_raw(&self, record: &[u8]) -> Result<Support> {
        self.world.put_raw(record);
        self.garbage.cancel();
        Ok(Support::Done)
    }

    fn patience(&self) -> Duration {
        // The faults are meant to be found; the rest takes milliseconds.
        Duration::from_secs(if self.fault == Fault::Slow { 5 } else { 2 })
    }
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    inner: Arc<memory::Memory>,
    world: memory::World,
    garbage: CancellationToken,
    published: AllPublished,
    tickets: Mutex<HashMap<Ticket, Arc<Instance>>>,
}

#[async_trait]
impl Backend for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    async fn publish(&self, instance: Arc<Instance>, replaces: Option<Ticket>) -> Result<Published> {
        let key = (instance.service().clone(), instance.id().clone());
        let published = match (self.fault, replaces) {
            (Fault::Slow, _) => {
                pause().await;
                let published = self.inner.publish(instance.clone(), replaces).await;
                pause().await;
                published?
            }
            (Fault::CommitsLate, _) => {
                let inner = self.inner.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    inner.publish(instance, replaces).await
                });
                return Ok(Published::new(Ticket::new(u64::MAX), pending()));
            }
            (Fault::HangsInOutage, _) => match self.inner.publish(instance.clone(), replaces).await {
                Ok(published) => published,
                Err(_) => pending().await,
            },
            (Fault::NoticesNoLoss, _) => {
                let published = self.inner.publish(instance.clone(), replaces).await?;
                Published::new(published.ticket, pending())
            }
            (Fault::LosesUpdates, Some(ticket)) => return Ok(Published::new(ticket, pending())),
            (Fault::UpdatesWithAGap, Some(ticket)) => {
                self.inner.withdraw(ticket).await?;
                pause().await;
                self.inner.publish(instance.clone(), None).await?
            }
            (Fault::KeepsTheEarlier, None) => {
                let earlier = self.published.lock().unwrap().get(&key).cloned();
                if let Some(earlier) = earlier {
                    let lost = async { Lost::Superseded(earlier) };
                    return Ok(Published::new(Ticket::new(u64::MAX), lost));
                }
                self.inner.publish(instance.clone(), None).await?
            }
            _ => self.inner.publish(instance.clone(), replaces).await?,
        };
        self.published.lock().unwrap().insert(key, instance.clone());
        self.tickets.lock().unwrap().insert(published.ticket, instance);
        Ok(published)
    }

    async fn withdraw(&self, ticket: Ticket) -> Result<()> {
        let put = self.tickets.lock().unwrap().get(&ticket).cloned();
        match self.fault {
            Fault::Slow => {
                pause().await;
                self.inner.withdraw(ticket).await?;
                pause().await;
            }
            Fault::ForgetsToWithdraw => return Ok(()),
            Fault::WithdrawsByName => {
                let put = put.as_ref().ok_or(Error::Closed)?;
                self.world.erase(put.service(), put.id());
            }
            _ => self.inner.withdraw(ticket).await?,
        }
        if let Some(put) = put {
            let key = (put.service().clone(), put.id().clone());
            self.published.lock().unwrap().remove(&key);
        }
        Ok(())
    }

    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        let updates = self.inner.observe(scope);
        match self.fault {
            Fault::Slow => updates
                .then(|update| async {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    update
                })
                .boxed(),
            Fault::SyncsTooEarly => stream::iter([Update::Synced])
                .chain(late(updates).flatten_stream())
                .boxed(),
            Fault::NeverSynced => updates
                .filter(|update| ready(!matches!(update, Update::Synced)))
                .boxed(),
            Fault::EchoesWhatLeft => echoing(updates),
            Fault::RepeatsAllAfterOutage => updates
                .flat_map(|update| match update {
                    Update::Reset(all) => {
                        let nothing = stream::iter([Update::Reset(Vec::new())]);
                        let all = late(stream::iter([Update::Reset(all)]).boxed());
                        nothing.chain(all.flatten_stream()).boxed()
                    }
                    other => stream::iter([other]).boxed(),
                })
                .boxed(),
            Fault::SaysEmptyInOutage => updates
                .flat_map(|update| {
                    stream::iter(match update {
                        Update::Stale(_) => vec![Update::Reset(Vec::new()), Update::Synced],
                        other => vec![other],
                    })
                })
                .boxed(),
            Fault::DropsForSlowReaders => lossy(updates),
            Fault::StopsAtGarbage => updates.take_until(self.garbage.clone().cancelled_owned()).boxed(),
            _ => updates,
        }
    }

    async fn close(&self) -> Result<()> {
        match self.fault {
            Fault::StaysOpen => Ok(()),
            _ => self.inner.close().await,
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.inner.counters()
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn late(updates: BoxStream<'static, Update>) -> BoxStream<'static, Update> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    updates
}

fn echoing(updates: BoxStream<'static, Update>) -> BoxStream<'static, Update> {
    let with_echo = |known: &mut HashMap<InstanceId, Arc<Instance>>, update: Update| {
        let echo = match &update {
            Update::Upsert(instance) => {
                known.insert(instance.id().clone(), instance.clone());
                None
            }
            Update::Remove(_, id) => known.get(id).cloned().map(Update::Upsert),
            _ => None,
        };
        ready(Some(stream::iter([update]).chain(stream::iter(echo))))
    };
    updates.scan(HashMap::new(), with_echo).flatten().boxed()
}

fn lossy(mut updates: BoxStream<'static, Update>) -> BoxStream<'static, Update> {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(update) = updates.next().await {
            let _ = sender.try_send(update);
        }
    });
    let next = |mut receiver: tokio::sync::mpsc::Receiver<Update>| async move {
        Some((receiver.recv().await?, receiver))
    };
    futures_util::stream::unfold(receiver, next).boxed()
}
