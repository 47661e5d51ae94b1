//! What is answered to questions of our own, put together: the records of one label come in several packets.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::packet::{Question, Response, What};
use super::wire::Resolved;

/// What has been answered so far.
#[derive(Debug, Default)]
pub(super) struct Answers {
    labels: HashMap<String, Answer>,
    hosts: HashMap<String, Host>,
    /// What the texts take.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Answer {
    server: Option<(String, u16)>,
    text: Option<Box<[u8]>>,
    /// What it says has not been returned yet.
    is_new: bool,
}

#[derive(Debug, Default)]
struct Host {
    /// Each with the index of the interface it was heard on.
    addresses: Vec<(IpAddr, u32)>,
    labels: BTreeSet<String>,
}

/// What a response has brought.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The labels of which all is known now, and those of which more is known than before.
    pub(super) resolved: Vec<(String, Resolved)>,
    /// The labels that are there.
    pub(super) heard: BTreeSet<String>,
}

impl Answers {
    /// Takes a response in that came by an interface.
    pub(super) fn take(&mut self, response: Response, index: u32) -> Taken {
        let mut touched = BTreeSet::new();
        for said in response.records {
            if said.ttl == 0 {
                // It says goodbye: whoever hears the multicast takes it away.
                continue;
            }
            self.take_record(said.what, index, &mut touched);
        }
        let resolved = touched.iter().filter_map(|label| {
            let resolved = self.resolved(label)?;
            Some((label.clone(), resolved))
        });
        Taken {
            resolved: resolved.collect(),
            heard: touched,
        }
    }

    /// What is said of a label next is news, whatever was said before.
    pub(super) fn doubt(&mut self, label: &str) {
        if let Some(answer) = self.labels.get_mut(label) {
            answer.is_new = true;
        }
    }

    fn take_record(&mut self, what: What, index: u32, touched: &mut BTreeSet<String>) {
        match what {
            What::Pointer(label) => {
                self.label(&label);
            }
            What::Server { label, host, port } => {
                touched.insert(label.clone());
                let Some(answer) = self.label(&label) else { return };
                let server = Some((host.clone(), port));
                if answer.server != server {
                    answer.server = server;
                    answer.is_new = true;
                }
                if let Some(host) = self
                    .host(host)
                    .filter(|host| host.labels.len() < MAX_LABELS_A_HOST)
                {
                    host.labels.insert(label);
                }
            }
            What::Text { label, strings } => {
                touched.insert(label.clone());
                let bytes = self.bytes + strings.len();
                let Some(answer) = self.label(&label) else { return };
                if answer.text.as_ref() != Some(&strings) {
                    if bytes > MAX_BYTES {
                        return;
                    }
                    answer.text = Some(strings);
                    answer.is_new = true;
                    self.bytes = bytes;
                }
            }
            What::Address { host, ip } => {
                let Some(host) = self.host(host) else { return };
                if host.addresses.contains(&(ip, index)) || host.addresses.len() >= MAX_ADDRESSES {
                    return;
                }
                host.addresses.push((ip, index));
                touched.extend(host.labels.iter().cloned());
                for label in host.labels.clone() {
                    if let Some(answer) = self.labels.get_mut(&label) {
                        answer.is_new = true;
                    }
                }
            }
        }
    }

    /// What is to be asked for, since a part of it has not come.
    pub(super) fn missing(&self) -> Vec<Question> {
        let missing = self.labels.iter().filter_map(|(label, answer)| {
            let label = || Some(Question::Label(label.clone()));
            let Some((host, _)) = answer.server.as_ref().filter(|_| answer.text.is_some()) else {
                return label();
            };
            let has_address = self
                .hosts
                .get(host)
                .is_some_and(|host| !host.addresses.is_empty());
            (!has_address).then(|| Question::Host(host.clone()))
        });
        missing.take(MAX_MISSING).collect()
    }

    fn resolved(&mut self, label: &str) -> Option<Resolved> {
        let answer = self.labels.get_mut(label).filter(|answer| answer.is_new)?;
        let ((host, port), text) = (answer.server.as_ref()?, answer.text.as_ref()?);
        let addresses = &self.hosts.get(host)?.addresses;
        if addresses.is_empty() {
            return None;
        }
        answer.is_new = false;
        Some(Resolved {
            port: *port,
            addresses: addresses.clone(),
            txt: pairs(text),
        })
    }

    fn label(&mut self, label: &str) -> Option<&mut Answer> {
        if !self.labels.contains_key(label) {
            if self.labels.len() >= MAX_LABELS {
                return None;
            }
            self.labels.insert(label.to_owned(), Answer::default());
        }
        self.labels.get_mut(label)
    }

    fn host(&mut self, host: String) -> Option<&mut Host> {
        let room = self.hosts.len() < MAX_LABELS;
        (room || self.hosts.contains_key(&host)).then(|| self.hosts.entry(host).or_default())
    }
}

/// The pairs of a TXT record (RFC 6763, 6.3), of strings that each stand behind their length.
fn pairs(mut strings: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut pairs = Vec::new();
    while let Some((length, rest)) = strings.split_first() {
        let Some((string, rest)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        strings = rest;
        let (key, value) = match string.iter().position(|byte| *byte == b'=') {
            Some(at) => (&string[..at], &string[at + 1..]),
            None => (string, &[][..]),
        };
        if let Ok(key) = std::str::from_utf8(key) {
            pairs.push((key.to_owned(), value.to_vec()));
        }
    }
    pairs
}

/// As many as are kept of what others publish, and some that will be refused.
const MAX_LABELS: usize = 20_000;
const MAX_ADDRESSES: usize = 64;
/// Ours have a host name each; other publishers have one for all.
const MAX_LABELS_A_HOST: usize = 256;
/// Ten times what so many texts of the usual size take.
const MAX_BYTES: usize = 32 << 20;
/// Asked for directly after a look: what it takes a few packets to ask.
const MAX_MISSING: usize = 150;

#[cfg(test)]
mod tests {
    use super::super::packet::Said;
    use super::*;

    fn response(all: Vec<What>) -> Response {
        let said = |what| Said { what, ttl: 10 };
        Response {
            id: 1,
            records: all.into_iter().map(said).collect(),
        }
    }

    fn server(label: &str) -> What {
        What::Server {
            label: label.to_owned(),
            host: "box.local".to_owned(),
            port: 80,
        }
    }

    fn text(label: &str) -> What {
        What::Text {
            label: label.to_owned(),
            strings: (*b"\x03a=1\x01b").into(),
        }
    }

    fn address(ip: [u8; 4]) -> What {
        What::Address {
            host: "box.local".to_owned(),
            ip: ip.into(),
        }
    }

    fn take(answers: &mut Answers, all: Vec<What>) -> Vec<(String, usize)> {
        let taken = answers.take(response(all), 2);
        let resolved = taken.resolved.into_iter();
        resolved
            .map(|(label, resolved)| (label, resolved.addresses.len()))
            .collect()
    }

    #[test]
    fn a_label_is_returned_once_all_of_it_is_known_and_when_more_is() {
        let mut answers = Answers::default();
        let pointer = || What::Pointer("one".to_owned());
        assert_eq!(take(&mut answers, vec![pointer()]), []);
        assert_eq!(answers.missing(), [Question::Label("one".to_owned())]);
        assert_eq!(take(&mut answers, vec![server("one"), text("one")]), []);
        assert_eq!(answers.missing(), [Question::Host("box.local".to_owned())]);
        let whole = take(&mut answers, vec![address([10, 0, 0, 1])]);
        assert_eq!(whole, [("one".to_owned(), 1)]);
        assert_eq!(answers.missing(), []);
        // Said again, it is nothing new.
        let again = vec![pointer(), server("one"), text("one"), address([10, 0, 0, 1])];
        assert_eq!(take(&mut answers, again), []);
        let more = take(&mut answers, vec![address([10, 0, 0, 2])]);
        assert_eq!(more, [("one".to_owned(), 2)]);
    }

    #[test]
    fn records_may_come_in_any_order() {
        let mut answers = Answers::default();
        assert_eq!(take(&mut answers, vec![address([10, 0, 0, 1]), text("one")]), []);
        assert_eq!(take(&mut answers, vec![server("one")]), [("one".to_owned(), 1)]);
        let resolved = pairs(b"\x03a=1\x01b");
        assert_eq!(
            resolved,
            [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), Vec::new())]
        );
    }

    #[test]
    fn what_says_goodbye_is_no_answer() {
        let mut answers = Answers::default();
        let mut goodbye = response(vec![server("one"), text("one"), address([10, 0, 0, 1])]);
        goodbye.records.iter_mut().for_each(|said| said.ttl = 0);
        let taken = answers.take(goodbye, 2);
        assert!(taken.heard.is_empty() && answers.missing().is_empty());
    }

    #[test]
    fn bounds_hold() {
        let mut answers = Answers::default();
        for n in 0..MAX_LABELS + 10 {
            let host = format!("{n}.local");
            let ip = [10, 0, 0, 1].into();
            let all = vec![What::Pointer(n.to_string()), What::Address { host, ip }];
            answers.take(response(all), 2);
        }
        assert_eq!(
            (answers.labels.len(), answers.hosts.len()),
            (MAX_LABELS, MAX_LABELS)
        );
        assert_eq!(answers.missing().len(), MAX_MISSING);
        let long = |n: usize| What::Text {
            label: n.to_string(),
            strings: vec![0; 60_000].into(),
        };
        for n in 0..1000 {
            answers.take(response(vec![long(n)]), 2);
        }
        assert!(answers.bytes <= MAX_BYTES && answers.bytes > MAX_BYTES / 2);
        for n in 0..=255 {
            take(&mut answers, vec![address([10, 1, 1, n])]);
        }
        assert!(
            answers
                .hosts
                .values()
                .all(|host| host.addresses.len() <= MAX_ADDRESSES)
        );
    }
}
