//! The scopes that are observed, and what this registry itself lays over them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::context::Context;
use super::lock::lock;
use super::observation::{self, Observation, ObservationHandle, Source};
use super::overlay::Overlay;
use super::scope_state::ScopeState;
use crate::backend::Scope;
use crate::instance::{Generation, Key, ServiceName};

/// Services that a backend is asked for one by one, at most; beyond, it is asked for all.
const MAX_OBSERVED_SERVICES: usize = 256;

/// The scopes that are observed. Each has one task and one state, however many read it.
#[derive(Debug)]
pub(super) struct Observations {
    pub(super) context: Arc<Context>,
    pub(super) tasks: TaskTracker,
    pub(super) runtime: Handle,
    /// Locked after the overlay, and before the state of any observation.
    pub(super) all: Mutex<HashMap<Scope, Arc<Observation>>>,
}

impl Observations {
    /// A handle to a scope, which is observed from now on.
    pub(super) fn handle(self: &Arc<Self>, scope: Scope) -> ObservationHandle {
        let overlay = self.overlay();
        let mut all = lock(&self.all);
        if let Some(observation) = all.get(&scope) {
            return observation.handle();
        }
        let handle = match &scope {
            Scope::Service(service) => {
                let source = match self.all_services(&mut all, &overlay) {
                    Some(services) => Source::Filtered(services, service.clone()),
                    None => Source::Backend,
                };
                self.begin(&mut all, scope, source, &overlay)
            }
            Scope::All => self.begin(&mut all, scope, Source::Backend, &overlay),
        };
        drop((all, overlay));
        handle
    }

    /// The observation of all services, where others are to be filtered from it: it is there already, or the backend
    /// would have to be asked for more services than it should.
    fn all_services(
        self: &Arc<Self>,
        all: &mut HashMap<Scope, Arc<Observation>>,
        overlay: &Overlay,
    ) -> Option<ObservationHandle> {
        if let Some(observation) = all.get(&Scope::All) {
            return Some(observation.handle());
        }
        let is_full = all.len() >= MAX_OBSERVED_SERVICES;
        is_full.then(|| self.begin(all, Scope::All, Source::Backend, overlay))
    }

    fn begin(
        self: &Arc<Self>,
        all: &mut HashMap<Scope, Arc<Observation>>,
        scope: Scope,
        source: Source,
        overlay: &Overlay,
    ) -> ObservationHandle {
        let is_direct = matches!(source, Source::Backend);
        let local = self.context.local.borrow().clone();
        let state = ScopeState::new(scope.clone(), is_direct, local, overlay);
        let observation = Observation::new(scope.clone(), state);
        let handle = observation.handle();
        all.insert(scope, observation.clone());
        let ends = {
            let (observations, scope) = (self.clone(), observation.scope().clone());
            move || observations.remove_if_unread(&scope)
        };
        let task = observation::follow(self.context.clone(), observation, source, ends);
        self.tasks.spawn_on(task, &self.runtime);
        handle
    }

    /// Ends the observation of a scope that nobody reads; returns whether it has ended.
    pub(super) fn remove_if_unread(&self, scope: &Scope) -> bool {
        let mut all = lock(&self.all);
        match all.get(scope) {
            Some(observation) if observation.has_handles() => false,
            _ => {
                all.remove(scope);
                true
            }
        }
    }

    /// How many scopes are observed.
    pub(super) fn len(&self) -> usize {
        lock(&self.all).len()
    }

    pub(super) fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.context.overlay()
    }

    /// Changes what this registry lays over the backend's state, for all its readers at once.
    pub(super) fn change_overlay(&self, key: &Key, change: impl FnOnce(&mut Overlay)) {
        let mut overlay = self.overlay();
        change(&mut overlay);
        let concerned: Vec<Arc<Observation>> = {
            let all = lock(&self.all);
            let of_service = all.get(&Scope::Service(key.service.clone()));
            of_service
                .into_iter()
                .chain(all.get(&Scope::All))
                .cloned()
                .collect()
        };
        for observation in concerned {
            observation.change(|state| state.show(key, &overlay));
        }
    }

    /// The latest generation that is known of a key.
    pub(super) fn generation(&self, key: &Key) -> Generation {
        let overlay = self.overlay();
        let all = lock(&self.all);
        let scopes = [Scope::Service(key.service.clone()), Scope::All];
        let concerned = scopes.iter().filter_map(|scope| all.get(scope));
        let found = concerned.map(|observation| observation.generation(key)).max();
        found.unwrap_or_default().max(overlay.generation(key))
    }

    /// The services that are known by what is observed already, and those that this registry itself publishes.
    pub(super) fn known_services(&self) -> BTreeSet<ServiceName> {
        let own: Vec<ServiceName> = self
            .overlay()
            .published()
            .map(|key| key.service.clone())
            .collect();
        let all: Vec<Arc<Observation>> = lock(&self.all).values().cloned().collect();
        let observed = all
            .iter()
            .flat_map(|observation| observation.snapshot().services());
        observed.chain(own).collect()
    }
}
