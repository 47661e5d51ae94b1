use std::time::Duration;

use super::super::wire::write;
use super::*;
use crate::backend::Update;
use crate::instance::{Generation, Instance};
use futures_util::{FutureExt, StreamExt};

struct Scene {
    polls: Polls,
    feeds: Arc<Feeds>,
    now: Instant,
    asked: Vec<(Instant, String)>,
}

impl Scene {
    fn new() -> Self {
        let (feeds, now) = (Arc::<Feeds>::default(), Instant::now());
        Self {
            polls: Polls::new(feeds.clone(), Arc::default(), Limits::default(), now),
            feeds,
            now,
            asked: Vec::new(),
        }
    }

    fn observe(&mut self, scope: Scope) -> crate::BoxStream<'static, Update> {
        let updates = self.feeds.observe(scope);
        self.polls.follow(self.now);
        updates
    }

    /// Lets time pass, while `answers` are given at once to each question for their services.
    fn run(&mut self, time: Duration, answers: &[Found]) {
        let ends = self.now + time;
        while self.now < ends {
            for name in self.polls.poll(self.now) {
                for found in answers
                    .iter()
                    .filter(|found| found.name.ends_with(&format!(".{name}")))
                {
                    self.polls.take(found, self.now);
                }
                self.asked.push((self.now, name));
            }
            self.now = self.polls.next().map_or(ends, |next| next.clamp(self.now, ends));
        }
    }
}

fn found(id: &str, generation: u64, leaves: bool) -> Found {
    let instance = Instance::new("greeter", 80).and_then(|i| i.with_id(id));
    let instance = instance.and_then(|i| i.with_address("10.0.0.9:80".parse::<crate::Address>().unwrap()));
    let instance = instance.unwrap().with_generation(Generation::new(generation, 0));
    let written = write(&instance).unwrap();
    Found {
        name: written.name,
        addresses: vec![written.address],
        strings: written.strings,
        leaves,
    }
}

fn listed(service: &str) -> Found {
    Found {
        name: format!("{service}.{SERVICES}"),
        addresses: Vec::new(),
        strings: Vec::new(),
        leaves: false,
    }
}

/// The updates until now, in short.
fn told(updates: &mut crate::BoxStream<'static, Update>) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(Some(update)) = updates.next().now_or_never() {
        told.push(match update {
            Update::Upsert(instance) => format!("+{} {}", instance.id(), instance.generation().millis()),
            Update::Remove(_, id) => format!("-{id}"),
            Update::Synced => "synced".to_owned(),
            Update::Stale(_) => "stale".to_owned(),
            Update::Reset(all) => format!("={}", all.len()),
        });
    }
    told
}

fn greeter() -> Scope {
    Scope::Service(ServiceName::new("greeter").unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_service_is_asked_for_twice_at_first_and_once_where_all_answer() {
    let mut scene = Scene::new();
    let mut updates = scene.observe(greeter());
    let one = [found("one", 1, false)];
    scene.run(Duration::from_secs(1), &one);
    assert_eq!(told(&mut updates), ["+one 1", "synced"]);
    assert_eq!(scene.asked.len(), 2);
    scene.run(Duration::from_secs(20), &one);
    assert!((3..=5).contains(&(scene.asked.len() - 2)), "{:?}", scene.asked);
    // It crashes: two questions in each of three rounds.
    let before = scene.asked.len();
    scene.run(Duration::from_secs(20), &[]);
    assert_eq!(told(&mut updates), ["-one"]);
    assert!(scene.asked.len() - before >= 6);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_believed_where_nobody_answers_and_a_flood_of_them_costs_little() {
    let mut scene = Scene::new();
    let mut updates = scene.observe(greeter());
    let one = [found("one", 1, false)];
    scene.run(Duration::from_secs(1), &one);
    told(&mut updates);
    let before = scene.asked.len();
    for _ in 0..100 {
        scene.polls.take(&found("one", 1, true), scene.now);
        scene.run(Duration::from_millis(10), &one);
    }
    assert!(scene.asked.len() - before <= 4, "{:?}", scene.asked);
    assert!(told(&mut updates).is_empty());
    scene.run(Duration::from_secs(1), &one);
    scene.polls.take(&found("one", 1, true), scene.now);
    scene.run(Duration::from_millis(400), &[]);
    assert_eq!(told(&mut updates), ["-one"]);
}

#[tokio::test(start_paused = true)]
async fn of_two_owners_of_an_id_the_later_is_shown_until_it_ends() {
    let mut scene = Scene::new();
    let mut updates = scene.observe(greeter());
    let (early, late) = (found("one", 1, false), found("one", 2, false));
    scene.run(Duration::from_secs(1), &[late, early]);
    assert_eq!(told(&mut updates), ["+one 2", "synced"]);
    let early = [found("one", 1, false)];
    scene.polls.take(&found("one", 2, true), scene.now);
    scene.run(Duration::from_secs(8), &early);
    assert_eq!(told(&mut updates), ["-one", "+one 1"]);
}

#[tokio::test(start_paused = true)]
async fn made_up_services_are_asked_for_within_a_budget_and_do_not_keep_all_from_being_known() {
    let mut scene = Scene::new();
    let mut updates = scene.observe(Scope::All);
    for n in 0..400 {
        for m in 0..5 {
            scene.polls.take(&listed(&format!("s{n}-{m}")), scene.now);
        }
        scene.run(Duration::from_millis(10), &[]);
    }
    let asked = scene.asked.len();
    // Each is asked for twice in a round.
    assert!(asked <= 2 * (200 + 4 * 100), "{asked}");
    assert_eq!(told(&mut updates), ["synced"]);
    assert!(scene.polls.services.len() <= MAX_SERVICES);
}

#[tokio::test(start_paused = true)]
async fn nothing_ends_in_an_outage() {
    let mut scene = Scene::new();
    let mut updates = scene.observe(greeter());
    let one = [found("one", 1, false)];
    scene.run(Duration::from_secs(1), &one);
    told(&mut updates);
    let why = crate::Error::unavailable("mdns", "no link");
    scene.polls.note_links(Some(Outage::now(why)), scene.now);
    scene.run(Duration::from_secs(60), &[]);
    assert_eq!(told(&mut updates), ["stale"]);
    scene.polls.note_links(None, scene.now);
    scene.run(Duration::from_secs(1), &one);
    assert_eq!(told(&mut updates), ["=1", "synced"]);
}
