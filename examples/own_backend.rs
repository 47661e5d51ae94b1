//! A backend of your own, and the proof that it keeps what a registry promises.
//!
//!     cargo run --example own_backend --features conformance
//!
//! prints a table with a line for each of the twelve promises, and ends with 0 if none is broken.
//! It says "partly" where this world can't do what the whole check needs: nothing here can cut the
//! peers off from their blackboard or write nonsense on it.
//!
//! The backend keeps instances on a blackboard that the peers of one process share. A real one
//! would write to a store in `publish` and `withdraw`, and would change the `Feed` as the store
//! tells what has changed.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use hereabouts::conformance::{self, Support, World};
use hereabouts::{Backend, BoxStream, Error, Feed, Instance, Lost, Published, Result, Scope};
use hereabouts::{InstanceId, ServiceName, Ticket, Update, async_trait};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What is written on the board. The feed tells every observer, each at its own pace.
#[derive(Debug, Default)]
struct Board {
    notes: Mutex<HashMap<(ServiceName, InstanceId), Note>>,
    feed: Feed,
    last_ticket: AtomicU64,
}

#[derive(Debug)]
struct Note {
    ticket: Ticket,
    instance: Arc<Instance>,
    tell_owner: oneshot::Sender<Lost>,
}

/// One peer.
#[derive(Debug)]
struct Peer {
    board: Arc<Board>,
    closed: CancellationToken,
}

#[async_trait]
impl Backend for Peer {
    fn name(&self) -> &'static str {
        "blackboard"
    }

    async fn publish(&self, instance: Arc<Instance>, replaces: Option<Ticket>) -> Result<Published> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        let mut notes = self.board.notes.lock().unwrap();
        let ticket = Ticket::new(self.board.last_ticket.fetch_add(1, Ordering::Relaxed));
        let key = (instance.service().clone(), instance.id().clone());
        let is_anothers = |note: &Note| Some(note.ticket) != replaces;
        // Of two owners of one id the later wins: the generation says which one that is.
        let is_later = |note: &&Note| is_anothers(note) && note.instance.generation() > instance.generation();
        if let Some(later) = notes.get(&key).filter(is_later) {
            let by = later.instance.clone();
            return Ok(Published::new(ticket, async { Lost::Superseded(by) }));
        }
        let (tell_owner, hears) = oneshot::channel();
        let put = instance.clone();
        let note = Note {
            ticket,
            instance: put,
            tell_owner,
        };
        if let Some(earlier) = notes.insert(key, note).filter(is_anothers) {
            let _ = earlier.tell_owner.send(Lost::Superseded(instance.clone()));
        }
        self.board.feed.upsert(instance);
        let lost = async { hears.await.unwrap_or(Lost::Gone(Error::Closed)) };
        Ok(Published::new(ticket, lost))
    }

    async fn withdraw(&self, ticket: Ticket) -> Result<()> {
        let mut notes = self.board.notes.lock().unwrap();
        for ((service, id), _) in notes.extract_if(|_, note| note.ticket == ticket) {
            self.board.feed.remove(&service, &id);
        }
        Ok(())
    }

    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        let closed = self.closed.clone().cancelled_owned();
        self.board.feed.subscribe(scope).take_until(closed).boxed()
    }

    // The registry has withdrawn everything by then, and here that never fails.
    async fn close(&self) -> Result<()> {
        self.closed.cancel();
        Ok(())
    }
}

/// Where peers meet, and what can break it: all that the suite has to know.
struct Room(Arc<Board>);

#[async_trait]
impl World for Room {
    async fn join(&self) -> Result<Box<dyn Backend>> {
        let (board, closed) = (self.0.clone(), CancellationToken::new());
        Ok(Box::new(Peer { board, closed }))
    }

    async fn erase(&self, service: &ServiceName, id: &InstanceId) -> Result<Support> {
        let key = (service.clone(), id.clone());
        if let Some(note) = self.0.notes.lock().unwrap().remove(&key) {
            self.0.feed.remove(service, id);
            let why = Error::backend("blackboard", "it was wiped off");
            let _ = note.tell_owner.send(Lost::Gone(why));
        }
        Ok(Support::Done)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let board = Board::default();
    board.feed.synced(); // from the start, what is not on the board is not there
    let report = conformance::run(&Room(Arc::new(board))).await;
    println!("{report}");
    if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
