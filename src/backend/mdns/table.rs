//! Which labels are there, and which instance each id shows of them: a state machine without
//! sockets or clocks.
//!
//! A label belongs to a publication, not to an instance: two owners of one id have two labels,
//! and the greatest generation is shown.

mod owners;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::owners::Owners;
use super::counters::Counters;
use super::crowd::Crowd;
use super::records::Source;
use super::wire::{self, Resolved, Skip};
use crate::backend::{Feed, Limits};
use crate::instance::{Instance, Key, Namespace, State};

/// Packets of several links and ways are not read in the order in which they were sent, so an earlier generation of a label can be
/// heard after a later one for so long. After that it is the truth, whatever was said in the label's name before.
const REORDERED: Duration = Duration::from_millis(900);

/// The labels that are there.
#[derive(Debug)]
pub(super) struct Table {
    namespace: Namespace,
    crowd: Crowd,
    feed: Feed,
    counters: Arc<Counters>,
    labels: HashMap<Arc<str>, Record>,
    owners: Owners,
    /// Labels that are to be asked whether they are there.
    doubtful: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Record {
    instance: Arc<Instance>,
    /// When its generation was heard first.
    since: Instant,
    own: bool,
    /// Its number among the strangers.
    number: u64,
    /// It has said goodbye, and is shown as draining.
    is_leaving: bool,
    /// Nobody accepts connections there.
    unreachable: bool,
    /// It is not shown before it has answered a question: another owner of its id was there when it came, whom anybody could
    /// replace with one packet; or a later one was, upon which its own owner withdraws it.
    is_doubtful: bool,
    /// It has answered a question.
    has_answered: bool,
}

/// The result of what was heard of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is there, and was before or was not; another one may have given way to it.
    Shown {
        key: Key,
        is_new: bool,
        evicted: Option<Arc<str>>,
        /// Its text is earlier than what is known, which stays; said again, it may be the truth.
        is_late: bool,
    },
    /// It is this registry's own.
    Own,
    /// It can't be read: what is known of it stays.
    Unreadable,
    /// There is no room for it, or it can't be read yet.
    Refused,
}

impl Table {
    pub(super) fn new(namespace: Namespace, limits: Limits, feed: Feed, counters: Arc<Counters>) -> Self {
        Self {
            namespace,
            crowd: Crowd::new(limits),
            feed,
            counters,
            labels: HashMap::new(),
            owners: Owners::default(),
            doubtful: BTreeSet::new(),
        }
    }

    /// Takes in what was heard of a label.
    pub(super) fn heard(
        &mut self,
        label: &Arc<str>,
        resolved: &Resolved,
        source: Source,
        now: Instant,
    ) -> Heard {
        let known = self.labels.get(label);
        if known.is_some_and(|record| record.own) {
            return Heard::Own;
        }
        let read = match (known, &resolved.txt) {
            (_, Some(_)) => wire::decode(resolved, &self.namespace),
            (Some(known), None) => wire::moved(&known.instance, resolved),
            (None, None) => return Heard::Refused,
        };
        let mut instance = match read {
            Ok(instance) => instance,
            Err(skip) => {
                // The last good version stays.
                self.counters.skipped(label, skip);
                return match skip {
                    // This host's clock may be set meanwhile, so it is read again when it is heard of again.
                    Skip::BeyondTomorrow if known.is_none() => Heard::Refused,
                    _ => Heard::Unreadable,
                };
            }
        };
        let is_new = known.is_none();
        let is_answer = source == Source::Reply;
        let has_answered = is_answer || known.is_some_and(|known| known.has_answered);
        let was_doubtful = known.is_some_and(|known| known.is_doubtful);
        let mut evicted = None;
        let mut unreachable = false;
        let mut since = now;
        let mut is_late = false;
        if let Some(known) = known {
            let generation = known.instance.generation();
            is_late = generation > instance.generation() && now - known.since < REORDERED;
            if is_late {
                instance = Instance::clone(&known.instance).at(instance.addresses().to_vec());
            }
            if is_late || generation == instance.generation() {
                unreachable = known.unreachable;
                since = known.since;
            }
        } else {
            match self.crowd.admit(self.labels.len(), &instance) {
                Ok(None) => {}
                Ok(Some(newest)) => {
                    self.counters.refused("a fair share for each service");
                    self.take(&newest);
                    evicted = Some(newest);
                }
                Err(bound) => {
                    self.counters.refused(&bound);
                    return Heard::Refused;
                }
            }
        }
        let is_doubted = match is_new {
            true => self.shown(instance.key()).is_some(),
            false => was_doubtful,
        };
        let is_doubtful = is_doubted && !is_answer;
        self.crowd.share_name(&mut instance);
        let record = Record {
            instance: Arc::new(instance),
            since,
            own: false,
            number: 0,
            is_leaving: false,
            unreachable,
            is_doubtful,
            has_answered,
        };
        if is_doubtful && is_new {
            self.doubtful.insert(label.clone());
        }
        let key = self.insert(label, record);
        Heard::Shown {
            key,
            is_new,
            evicted,
            is_late,
        }
    }

    /// A label has said goodbye: nobody should pick it any longer. Whether it was not draining before, which its
    /// owner would have said first.
    pub(super) fn leaves(&mut self, label: &str) -> bool {
        let Some(record) = self.labels.get_mut(label).filter(|record| !record.own) else {
            return false;
        };
        record.is_leaving = true;
        let surprises = record.instance.state() != State::Draining;
        let key = record.instance.key().clone();
        self.show(&key);
        surprises
    }

    /// Puts an instance of this registry's own.
    pub(super) fn put_own(&mut self, label: &str, instance: Instance) {
        let record = Record {
            instance: Arc::new(instance.into_found()),
            since: Instant::now(),
            own: true,
            number: 0,
            is_leaving: false,
            unreachable: false,
            is_doubtful: false,
            has_answered: true,
        };
        self.insert(&label.into(), record);
    }

    /// Takes a label away. Whether it was there.
    pub(super) fn take(&mut self, label: &str) -> bool {
        let Some(record) = self.labels.remove(label) else {
            return false;
        };
        if !record.own {
            self.crowd.leaves(record.number, &record.instance);
        }
        self.doubtful.remove(label);
        let key = record.instance.key();
        self.owners.remove(key, label);
        self.show(key);
        self.doubt_earlier(key);
        true
    }

    /// Where nobody of a key is shown, its earlier owners may be there still.
    fn doubt_earlier(&mut self, key: &Key) {
        if self.shown(key).is_none() {
            let labels = self.owners.of(key).iter();
            let earlier = labels.filter(|label| self.labels.get(*label).is_some_and(|it| it.is_doubtful));
            self.doubtful.extend(earlier.cloned());
        }
    }

    /// Takes the labels to ask for whether they are there.
    pub(super) fn take_doubtful(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.doubtful).into_iter().collect()
    }

    /// Puts back those that were not asked for.
    pub(super) fn put_back_doubtful(&mut self, labels: &[Arc<str>]) {
        self.doubtful.extend(labels.iter().cloned());
    }

    pub(super) fn has_doubtful(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// A label has answered: it is shown where nobody later is there. Returns its key, where that was in doubt.
    pub(super) fn confirm(&mut self, label: &str) -> Option<Key> {
        let record = self.labels.get_mut(label).filter(|record| !record.own)?;
        if !std::mem::replace(&mut record.has_answered, true) {
            self.crowd.note_answer(record.number, &record.instance);
        }
        if !record.is_doubtful {
            return None;
        }
        let instance = record.instance.clone();
        let key = instance.key();
        let is_later = |(_, shown): (_, &Arc<Instance>)| shown.generation() > instance.generation();
        if !self.shown(key).is_some_and(is_later)
            && let Some(record) = self.labels.get_mut(label)
        {
            record.is_doubtful = false;
            self.supersede_earlier(key);
            self.show(key);
        }
        Some(key.clone())
    }

    /// The label whose instance is shown for a key, and the instance.
    pub(super) fn shown(&self, key: &Key) -> Option<(&Arc<str>, &Arc<Instance>)> {
        let labels = self.owners.of(key).iter();
        let records = labels.filter_map(|label| Some((label, self.labels.get(label)?)));
        let reachable = records.filter(|(_, record)| !record.unreachable && !record.is_doubtful);
        let (label, record) =
            reachable.max_by_key(|(label, record)| (record.instance.generation(), *label))?;
        Some((label, &record.instance))
    }

    /// Another stranger's label at an address of this one's.
    pub(super) fn neighbour(&self, label: &str) -> Option<Arc<str>> {
        let ips = |record: &Record| -> Vec<_> {
            let addresses = record.instance.addresses().iter();
            addresses.filter_map(|address| address.ip()).collect()
        };
        let mine = ips(self.labels.get(label)?);
        let mut others = self.labels.iter().filter(|(other, record)| {
            ***other != *label && !record.own && !record.is_leaving && !record.unreachable
        });
        let (other, _) = others.find(|(_, record)| ips(record).iter().any(|ip| mine.contains(ip)))?;
        Some(other.clone())
    }

    /// Whether a label is not shown before it has answered.
    pub(super) fn is_doubtful(&self, label: &str) -> bool {
        self.labels.get(label).is_some_and(|record| record.is_doubtful)
    }

    /// Whether a label is this registry's own.
    pub(super) fn is_own(&self, label: &str) -> bool {
        self.labels.get(label).is_some_and(|record| record.own)
    }

    /// Whether a stranger's label is draining, and has not said goodbye.
    pub(super) fn is_draining(&self, label: &str) -> bool {
        self.labels.get(label).is_some_and(|record| {
            !record.own && !record.is_leaving && record.instance.state() == State::Draining
        })
    }

    /// The labels of a key that are not shown, since a later owner's is.
    pub(super) fn superseded(&self, key: &Key) -> Option<(Arc<Instance>, Vec<Arc<str>>)> {
        let (shown, by) = self.shown(key)?;
        let labels = self.owners.of(key).iter().filter(|label| *label != shown);
        Some((by.clone(), labels.cloned().collect()))
    }

    /// The number of labels that are known; none where all of them are this registry's own. It counts nothing, since each
    /// question of another host asks for it.
    pub(super) fn known(&self) -> usize {
        let has_strangers = self.labels.values().any(|record| !record.own);
        if has_strangers { self.labels.len() } else { 0 }
    }

    /// The strangers that are up, for a probe.
    pub(super) fn probed(&self) -> Vec<(String, Arc<Instance>)> {
        let up = |record: &Record| !record.own && record.instance.state() == State::Up;
        let strangers = self.labels.iter().filter(|(_, record)| up(record));
        strangers
            .map(|(label, record)| (label.to_string(), record.instance.clone()))
            .collect()
    }

    /// Takes in whether somebody accepts connections there, as a probe has found.
    pub(super) fn set_reachable(&mut self, label: &str, reachable: bool) {
        let Some(record) = self.labels.get_mut(label) else {
            return;
        };
        if record.unreachable == reachable {
            record.unreachable = !reachable;
            let key = record.instance.key().clone();
            self.supersede_earlier(&key);
            self.show(&key);
            self.doubt_earlier(&key);
        }
    }

    /// Takes note that there is room again. Returns whether strangers were refused before: once for each time.
    pub(super) fn take_room_again(&mut self) -> bool {
        self.crowd.take_room_again(self.labels.len())
    }

    /// Everything that is shown, for a reset.
    pub(super) fn all(&self) -> Vec<Arc<Instance>> {
        self.owners.keys().filter_map(|key| self.as_shown(key)).collect()
    }

    fn insert(&mut self, label: &Arc<str>, mut record: Record) -> Key {
        let instance = record.instance.clone();
        let key = instance.key();
        if !record.own && !self.labels.contains_key(label) && self.owners.of(key).is_empty() {
            // Nothing is known of it yet, as of most that is heard at once.
            record.number = self.crowd.comes(label, &record.instance, record.has_answered);
            self.feed.upsert(instance.clone());
            self.labels.insert(label.clone(), record);
            self.owners.add(&instance, label);
            return key.clone();
        }
        if self
            .labels
            .get(label)
            .is_some_and(|known| known.instance.key() != key)
        {
            // A label that changes its identity is another publication.
            self.take(label);
        }
        let known = self.labels.get(label).filter(|known| !known.own);
        match known {
            Some(known) if !record.own => {
                self.crowd.moves(&known.instance, &record.instance);
                record.number = known.number;
            }
            Some(known) => self.crowd.leaves(known.number, &known.instance),
            None if !record.own => {
                record.number = self.crowd.comes(label, &record.instance, record.has_answered)
            }
            None => {}
        }
        self.labels.insert(label.clone(), record);
        self.owners.add(&instance, label);
        self.supersede_earlier(key);
        self.show(key);
        key.clone()
    }

    /// Of several owners of a key, those before the latest are not shown again unless they answer.
    fn supersede_earlier(&mut self, key: &Key) {
        let labels = self.owners.of(key);
        let Some(latest) = self.shown(key).filter(|_| labels.len() > 1) else {
            return;
        };
        let latest = (latest.1.generation(), latest.0.clone());
        for label in labels {
            if let Some(record) = self.labels.get_mut(label).filter(|record| !record.own)
                && (record.instance.generation(), label) < (latest.0, &latest.1)
            {
                record.is_doubtful = true;
            }
        }
    }

    /// The instance of a key as it is shown: what has said goodbye is draining.
    fn as_shown(&self, key: &Key) -> Option<Arc<Instance>> {
        let (label, instance) = self.shown(key)?;
        if self.labels.get(label).is_none_or(|record| !record.is_leaving) {
            return Some(instance.clone());
        }
        let mut draining = Instance::clone(instance);
        let (version, weight) = (instance.version().to_owned(), instance.weight());
        draining.set_read(&version, weight, State::Draining);
        Some(Arc::new(draining))
    }

    fn show(&self, key: &Key) {
        match self.as_shown(key) {
            Some(instance) => {
                let before = self.feed.get(&key.service, &key.id);
                if before.is_some_and(|before| before.generation() > instance.generation()) {
                    // The one that was shown has left, and an earlier one is there still.
                    self.feed.remove(&key.service, &key.id);
                }
                self.feed.upsert(instance);
            }
            None => self.feed.remove(&key.service, &key.id),
        }
    }
}

#[cfg(test)]
mod tests;
