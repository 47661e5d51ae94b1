//! Asking from ephemeral ports, so that everybody answers at once and by unicast (RFC 6762, 6.7), free of the
//! delay of multicast answers and of the rule that none is repeated within a second.

use std::future::poll_fn;

use super::endpoint::Ask;
use super::proto::LinkId;
use super::proto::message::Response;
use super::sockets::{Kind, Message, ServiceReader, Sockets};
use crate::net::Interfaces;

/// An answer to a question of ours.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) link: LinkId,
    pub(super) is_from_another_host: bool,
    pub(super) response: Response,
}

/// A socket for each link, and the number that its answers repeat.
#[derive(Debug)]
pub(super) struct Asker {
    id: u16,
    service_type: String,
    sockets: Sockets<ServiceReader>,
}

impl Asker {
    /// Opens them; one that can't be opened is left out.
    pub(super) fn open(interfaces: &Interfaces, service_type: &str) -> Self {
        let mut sockets = Sockets::new(ServiceReader::new(service_type), Kind::Unicast);
        sockets.follow(interfaces);
        Self {
            id: fastrand::u16(..),
            service_type: service_type.to_owned(),
            sockets,
        }
    }

    /// Asks. Returns how many packets were sent.
    pub(super) fn ask(&self, ask: &Ask) -> usize {
        let queries = ask.packets(self.id, &self.service_type);
        queries
            .iter()
            .map(|query| self.sockets.send(query, ask.links))
            .sum()
    }

    /// Waits for answers, and takes all that are there, up to a bound. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Vec<Answer> {
        poll_fn(|context| {
            let heard = self.sockets.poll_hear(context);
            heard.map(|heard| {
                let answers = heard.into_iter().filter_map(|heard| match heard.message {
                    Message::Response(response) if response.id == self.id => Some(Answer {
                        link: heard.link,
                        is_from_another_host: heard.is_from_another_host,
                        response,
                    }),
                    _ => None,
                });
                answers.collect()
            })
        })
        .await
    }
}
