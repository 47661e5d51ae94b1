//! What the engine is told, in order, as its queue has room.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::engine::{Announcement, Refused};
use super::super::publication::Publication;
use super::Driver;
use crate::error::Result;

/// What is to be told to the engine, in this order, as its queue has room.
pub(super) enum Order {
    Register(Box<Announcement>),
    Unregister(String, Option<oneshot::Sender<Result<()>>>),
}

impl Driver {
    /// Tells the engine what it has room for. After it was full it is left alone for a moment: each
    /// of its turns looks through all that it knows, so many orders a turn are done sooner.
    pub(super) fn flush(&mut self) {
        if self.clock.flush.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.clock.flush = None;
        while let Some(engine) = self.engine.as_mut() {
            let Some(order) = self.orders.pop_front() else {
                return;
            };
            let result = match &order {
                Order::Register(announcement) => engine.register(announcement).map(|()| None),
                Order::Unregister(label, _) => engine.unregister(label).map(Some),
            };
            match (result, order) {
                (Ok(Some(sent)), order) => self.said_goodbye(sent, order),
                (Ok(None), _) => {}
                (Err(Refused::Busy), order) => {
                    self.orders.push_front(order);
                    self.clock.flush = Some(Instant::now() + FLUSH_AGAIN);
                    return;
                }
                (Err(Refused::Dead), _) => return self.engine_died(Instant::now()),
                (Err(Refused::Never), Order::Register(announcement)) => self.refused(&announcement.label),
                (Err(Refused::Never), _) => {}
            }
        }
    }

    pub(super) fn said_goodbye(&mut self, sent: BoxFuture<'static, ()>, order: Order) {
        self.last_goodbye = Some(Instant::now());
        self.goodbyes.push(Box::pin(async move {
            sent.await;
            if let Order::Unregister(_, Some(reply)) = order {
                // Who no longer waits need not know.
                let _ = reply.send(Ok(()));
            }
        }));
    }

    /// Announces all that is published again.
    pub(super) fn announce_all(&mut self) {
        let all = self.publications.values();
        let again = all.map(|p| Order::Register(Box::new(p.announcement(&self.settings.namespace))));
        self.orders.extend(again);
    }

    pub(super) fn order_register(&mut self, publication: &Publication) {
        let announcement = publication.announcement(&self.settings.namespace);
        self.orders.push_back(Order::Register(Box::new(announcement)));
    }
}

const FLUSH_AGAIN: Duration = Duration::from_millis(2);
