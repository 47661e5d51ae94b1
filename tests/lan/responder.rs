//! Somebody on the link who answers questions as it likes.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::Host;

/// It answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Responder {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A question that came from an ephemeral port.
pub(crate) struct Asked<'a> {
    pub(crate) socket: &'a UdpSocket,
    pub(crate) from: SocketAddr,
    pub(crate) id: [u8; 2],
}

impl Asked<'_> {
    /// Answers with a packet that gets the question's number.
    pub(crate) fn answer(&self, mut packet: Vec<u8>) {
        packet[..2].copy_from_slice(&self.id);
        self.socket.send_to(&packet, self.from).expect("it is sent");
    }
}

impl Responder {
    /// The host has nothing else on port 5353.
    pub(crate) fn on(host: &Host, mut answer: impl FnMut(&Asked<'_>) + Send + 'static) -> Self {
        let own = host.address();
        let socket = host.in_namespace(|| {
            let socket = shared_socket(Ipv4Addr::UNSPECIFIED);
            socket
                .join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &own)
                .expect("a member");
            socket
                .set_read_timeout(Some(Duration::from_millis(50)))
                .expect("a limit");
            socket
        });
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 9000];
            while !ends.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else {
                    continue;
                };
                let is_question = length > 2 && packet[2] & 0x80 == 0;
                if is_question && from.port() != 5353 {
                    let id = [packet[0], packet[1]];
                    answer(&Asked {
                        socket: &socket,
                        from,
                        id,
                    });
                }
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

/// The responses that are sent to everybody, as a host hears them.
pub(crate) struct Announcements(UdpSocket);

impl Announcements {
    /// From now on.
    pub(crate) fn on(host: &Host) -> Self {
        let own = host.address();
        Self(host.in_namespace(|| {
            let group = Ipv4Addr::new(224, 0, 0, 251);
            // Packets to the host alone are not for everybody.
            let socket = shared_socket(group);
            socket.join_multicast_v4(&group, &own).expect("a member");
            socket
        }))
    }

    /// Waits until nothing was sent for so long.
    pub(crate) fn wait_quiet(&self, time: Duration) {
        let mut packet = [0; 9000];
        self.0.set_read_timeout(Some(time)).expect("a limit");
        while self.0.recv_from(&mut packet).is_ok() {}
    }

    /// Waits for a response of a host.
    #[track_caller]
    pub(crate) fn wait_for_response(&self, of: Ipv4Addr, limit: Duration) {
        let ends = Instant::now() + limit;
        let mut packet = [0; 9000];
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{of} has said nothing within {limit:?}");
            self.0.set_read_timeout(Some(left)).expect("a limit");
            if let Ok((length, from)) = self.0.recv_from(&mut packet)
                && length > 2
                && packet[2] & 0x80 != 0
                && from.ip() == of
            {
                return;
            }
        }
    }

    /// Waits for a response of a host, before which it has asked nothing by multicast. Returns how long it took.
    #[track_caller]
    pub(crate) fn wait_for_announcement(&self, of: Ipv4Addr, limit: Duration) -> Duration {
        let began = Instant::now();
        let mut packet = [0; 9000];
        while let Some(left) = limit.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            self.0.set_read_timeout(Some(left)).expect("a limit");
            match self.0.recv_from(&mut packet) {
                Ok((length, from)) if length > 2 && from.ip() == of && from.port() == 5353 => {
                    assert!(packet[2] & 0x80 != 0, "it asks by multicast");
                    return began.elapsed();
                }
                _ => {}
            }
        }
        panic!("{of} has announced nothing within {limit:?}");
    }
}

/// A socket on port 5353 beside others.
pub(crate) fn shared_socket(address: Ipv4Addr) -> UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("it is shared");
    socket
        .bind(&SocketAddr::from((address, 5353)).into())
        .expect("port 5353 is shared");
    socket.into()
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
