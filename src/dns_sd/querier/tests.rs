use simple_dns::{Packet, QTYPE, TYPE};

use super::*;
use crate::backend::mdns::LinkId;
use crate::dns_sd::message::{Data, Record, Response};
use crate::net::{Interface, Interfaces};

const LINK: LinkId = LinkId {
    index: 2,
    is_ipv4: true,
};

/// A querier on one link, with what it has sent.
struct Scene {
    querier: Querier,
    now: Instant,
    /// The questions that were asked, as `type name`, and when.
    asked: Vec<(Instant, String)>,
    packets: usize,
}

impl Scene {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let interface = Interface {
            name: "eth0".to_owned(),
            index: LINK.index,
            addresses: vec![("10.0.0.1".parse().unwrap(), 24)],
            loopback: false,
            point_to_point: false,
        };
        let mut querier = Querier::new(limits, Arc::default(), now);
        querier.handle_links(Local::of_interfaces(Interfaces::of(vec![interface])), None, now);
        Self {
            querier,
            now,
            asked: Vec::new(),
            packets: 0,
        }
    }

    fn browse(&mut self, kind: &str) -> watch::Receiver<Arc<Services>> {
        let kind = ServiceType::new(kind).unwrap();
        self.querier.browse(Name::of_type(&kind), false, self.now)
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let ends = self.now + time;
        while self.now < ends {
            self.querier.handle_timeout(self.now);
            while let Some(transmit) = self.querier.poll_transmit() {
                self.packets += 1;
                let packet = Packet::parse(&transmit.bytes).unwrap();
                for question in &packet.questions {
                    let QTYPE::TYPE(kind) = question.qtype else {
                        panic!()
                    };
                    if kind != TYPE::TXT && kind != TYPE::AAAA {
                        self.asked
                            .push((self.now, format!("{kind:?} {}", question.qname)));
                    }
                }
            }
            self.now = self.querier.poll_timeout().clamp(self.now, ends);
        }
    }

    fn hear(&mut self, records: Vec<Record>) {
        self.querier
            .handle(&Response { id: 0, records }, LINK, true, self.now);
    }

    fn times_asked(&self, question: &str) -> usize {
        self.asked.iter().filter(|(_, asked)| asked == question).count()
    }
}

fn record(name: Name, ttl: u32, data: Data) -> Record {
    Record {
        name,
        ttl,
        flushes: false,
        data,
    }
}

fn kind() -> Name {
    Name::of(["_http", "_tcp", "local"])
}

fn full(name: &str) -> Name {
    Name::of([name, "_http", "_tcp", "local"])
}

fn pointer(name: &str, ttl: u32) -> Record {
    record(kind(), ttl, Data::Pointer(full(name)))
}

/// The records of a service beside its pointer.
fn records(name: &str) -> Vec<Record> {
    let host = || Name::of([format!("h-{name}").as_str(), "local"]);
    vec![
        record(host(), 120, Data::Address("10.0.0.9".parse().unwrap())),
        record(full(name), 4500, Data::Text((*b"\x03a=b").into())),
        record(
            full(name),
            120,
            Data::Server {
                host: host(),
                port: 80,
            },
        ),
    ]
}

fn names(state: &watch::Receiver<Arc<Services>>) -> Vec<String> {
    state
        .borrow()
        .iter()
        .map(|service| service.name.clone())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_service_is_shown_asked_for_again_and_ends_where_nobody_answers() {
    let mut scene = Scene::new(Limits::default());
    let state = scene.browse("_http._tcp");
    scene.run(Duration::from_millis(30));
    // In any order.
    scene.hear([records("one"), vec![pointer("one", 4500)]].concat());
    assert_eq!(names(&state), ["one"]);
    assert!(!state.borrow().is_synced());
    scene.run(Duration::from_millis(400));
    assert!(state.borrow().is_synced());
    assert_eq!(
        scene.times_asked("SRV one._http._tcp.local"),
        0,
        "{:?}",
        scene.asked
    );
    scene.run(Duration::from_secs(118));
    assert_eq!(names(&state), ["one"]);
    for question in ["SRV one._http._tcp.local", "A h-one.local"] {
        assert_eq!(scene.times_asked(question), 4, "{question}: {:?}", scene.asked);
    }
    scene.run(Duration::from_secs(2));
    assert!(names(&state).is_empty());
    // It was only cut off: it is still asked for, at least once a minute.
    let before = scene.times_asked("SRV one._http._tcp.local");
    scene.run(Duration::from_secs(600));
    let since = scene.times_asked("SRV one._http._tcp.local") - before;
    assert!((8..20).contains(&since), "{since}");
    scene.hear(records("one"));
    assert_eq!(names(&state), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_believed_where_nobody_answers() {
    let mut scene = Scene::new(Limits::default());
    let state = scene.browse("_http._tcp");
    for name in ["one", "two"] {
        scene.hear([records(name), vec![pointer(name, 4500)]].concat());
    }
    scene.run(Duration::from_secs(10));
    scene.hear(vec![pointer("one", 0), pointer("two", 0)]);
    scene.run(Duration::from_millis(500));
    // By unicast, then both ways.
    assert_eq!(scene.times_asked("SRV one._http._tcp.local"), 3);
    scene.hear(records("two"));
    scene.run(Duration::from_secs(1));
    assert_eq!(names(&state), ["two"]);
    scene.run(Duration::from_secs(60));
    assert_eq!(names(&state), ["two"]);
}

#[tokio::test(start_paused = true)]
async fn made_up_names_cost_a_bounded_number_of_questions_and_give_way() {
    let limits = Limits {
        instances: 1000,
        ..Limits::default()
    };
    let mut scene = Scene::new(limits);
    let state = scene.browse("_http._tcp");
    scene.hear([records("real"), vec![pointer("real", 4500)]].concat());
    for n in 0..20_000 {
        scene.hear(vec![pointer(&format!("made up {n}"), 4500)]);
    }
    scene.run(Duration::from_secs(10));
    let asked = scene
        .asked
        .iter()
        .filter(|(_, asked)| asked.starts_with("SRV"))
        .count();
    assert!(asked <= 1000 + 20 * 200, "{asked} questions");
    assert!(scene.packets < 1500, "{} packets", scene.packets);
    assert_eq!(scene.querier.counters.read().evicted, 19_001);
    scene.hear([records("late"), vec![pointer("late", 4500)]].concat());
    assert_eq!(names(&state), ["late", "real"]);
    assert_eq!(scene.querier.entries.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_or_asked_once_nobody_reads() {
    let mut scene = Scene::new(Limits::default());
    let state = scene.browse("_http._tcp");
    scene.hear([records("one"), vec![pointer("one", 4500)]].concat());
    scene.run(Duration::from_secs(1));
    drop(state);
    scene.run(Duration::from_secs(2));
    assert!(scene.querier.is_idle() && scene.querier.entries.is_empty() && scene.querier.hosts.is_empty());
    // Records that nobody asked for are not kept at all.
    scene.hear([records("one"), vec![pointer("one", 4500)]].concat());
    assert!(scene.querier.entries.is_empty() && scene.querier.hosts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_ends_in_an_outage_and_all_is_asked_for_after_it() {
    let mut scene = Scene::new(Limits::default());
    let state = scene.browse("_http._tcp");
    scene.hear([records("one"), vec![pointer("one", 120)]].concat());
    scene.run(Duration::from_secs(1));
    let local = scene.querier.local().clone();
    let why = Some("no usable interface is up".to_owned());
    scene
        .querier
        .handle_links(Local::without_interfaces(None), why, scene.now);
    scene.run(Duration::from_secs(600));
    assert_eq!(names(&state), ["one"]);
    assert!(state.borrow().stale().is_some());
    let before = scene.asked.len();
    scene.querier.handle_links(local, None, scene.now);
    scene.run(Duration::from_secs(1));
    assert!(scene.asked.len() > before && state.borrow().stale().is_none());
    assert_eq!(names(&state), ["one"]);
    // Nobody has answered since.
    scene.run(Duration::from_secs(5));
    assert!(names(&state).is_empty());
}
