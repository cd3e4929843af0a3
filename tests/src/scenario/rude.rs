//! Connections that break the rules: garbage, halves of frames, hellos that are refused, requests without end whose
//! answers nobody reads. The node must refuse them and serve everybody else as before.

use core::net::SocketAddr;
use core::task::Poll;
use core::time::Duration;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use ostrakon::env::{Connection, Tasks};
use ostrakon_wire::ClusterId;
use ostrakon_wire::message::{Condition, Encoder, Hello, PROTOCOL_VERSION, Request, ScanRequest};

use super::client::within;
use super::plan::{Rudeness, RudenessKind};
use super::workload::Shared;
use crate::sim::{HostId, World};

/// How long a rude connection stays at most.
const PATIENCE: Duration = Duration::from_secs(12);
/// Requests that are sent without reading an answer.
const UNREAD_REQUESTS: u64 = 1_500;

/// Carries out one rudeness, from a client's host.
pub async fn be_rude(shared: Rc<Shared>, host: HostId, rudeness: Rudeness) {
    let tasks = shared.world.client_env(host).tasks;
    tasks.sleep(Duration::from_nanos(rudeness.at_ns)).await;
    let Some(address) = shared.address.get() else {
        return;
    };
    let rude = converse(&shared.world, host, address, rudeness);
    // Whether the node ends the connection or patience does makes no difference here.
    let _ended = within(rude, tasks.sleep(PATIENCE)).await;
}

async fn converse(world: &World, host: HostId, address: SocketAddr, rudeness: Rudeness) {
    let Ok(connection) = world.connect(host, address).await else {
        return;
    };
    let tasks = world.client_env(host).tasks;
    let bytes = bytes_of(&rudeness);
    let reads = rudeness.kind != RudenessKind::NeverReads;
    exchange(&*connection, &*tasks, &bytes, reads).await;
    connection.shutdown();
}

/// Sends all bytes, and reads until the node closes, if `reads`.
async fn exchange(connection: &dyn Connection, tasks: &dyn Tasks, bytes: &[u8], reads: bool) {
    let sent = Cell::new(0);
    if !reads {
        let sending = poll_fn(|cx| {
            while sent.get() < bytes.len() {
                match connection.poll_send(cx, &bytes[sent.get()..]) {
                    Poll::Ready(Ok(count)) => sent.set(sent.get() + count),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        });
        let _given_up = within(sending, tasks.sleep(PATIENCE / 4)).await;
        return tasks.sleep(PATIENCE / 4).await;
    }
    poll_fn(|cx| {
        loop {
            let mut is_stuck = true;
            if sent.get() < bytes.len()
                && let Poll::Ready(Ok(count)) = connection.poll_send(cx, &bytes[sent.get()..])
            {
                sent.set(sent.get() + count);
                is_stuck = false;
            }
            match connection.poll_recv(cx, &mut |_| {}) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Pending if is_stuck => return Poll::Pending,
                Poll::Ready(Ok(_)) | Poll::Pending => {}
            }
        }
    })
    .await;
}

fn hello(core: Option<u16>) -> Hello<'static> {
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        cluster_id: ClusterId::ANY,
        core,
        client: "rude",
    }
}

fn wrong_hello(number: u64) -> Hello<'static> {
    match number % 3 {
        0 => Hello {
            version_min: PROTOCOL_VERSION + 1,
            version_max: PROTOCOL_VERSION + 1,
            ..hello(None)
        },
        1 => Hello {
            cluster_id: ClusterId { high: 1, low: number },
            ..hello(None)
        },
        _ => hello(Some(60_000)),
    }
}

fn bytes_of(rudeness: &Rudeness) -> Vec<u8> {
    let number = rudeness.number;
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    let mut say = |request: &Request<'_>, timestamp: u64, bytes: &mut Vec<u8>| {
        encoder.request(bytes, number % 7, timestamp, request);
    };
    let get = Request::Get { key: b"key 00001" };
    match rudeness.kind {
        RudenessKind::Garbage => {
            bytes.extend((0..number % 3_000).map(|place| (place.wrapping_mul(number) >> 3) as u8));
        }
        RudenessKind::HalfHello => {
            say(&Request::Hello(hello(None)), 0, &mut bytes);
            bytes.truncate(bytes.len() / 2);
        }
        RudenessKind::NoHello => say(&get, 0, &mut bytes),
        RudenessKind::WrongHello => say(&Request::Hello(wrong_hello(number)), 0, &mut bytes),
        RudenessKind::SecondHello => {
            say(&Request::Hello(hello(Some((number % 2) as u16))), 0, &mut bytes);
            say(&Request::Hello(hello(None)), 0, &mut bytes);
        }
        RudenessKind::FarAhead => {
            say(&Request::Hello(hello(None)), 0, &mut bytes);
            say(&get, u64::MAX >> 1, &mut bytes);
            let scan = ScanRequest {
                start: &[],
                end: None,
                limit: 1,
                snapshot: u64::MAX >> 1,
                keys_only: false,
            };
            say(&Request::Scan(scan), 0, &mut bytes);
        }
        RudenessKind::DamagedFrame => {
            say(&Request::Hello(hello(None)), 0, &mut bytes);
            let put = Request::Put {
                key: b"key 00001",
                value: &[1; 100],
                condition: Condition::None,
            };
            let start = bytes.len();
            say(&put, 0, &mut bytes);
            let place = start + number as usize % (bytes.len() - start);
            bytes[place] ^= 1 << (number % 8);
        }
        RudenessKind::NeverReads => {
            say(&Request::Hello(hello(None)), 0, &mut bytes);
            let scan = ScanRequest {
                start: &[],
                end: None,
                limit: 0,
                snapshot: 0,
                keys_only: false,
            };
            for request in 0..UNREAD_REQUESTS {
                let request = if request % 50 == 0 {
                    Request::Scan(scan)
                } else {
                    get
                };
                say(&request, 0, &mut bytes);
            }
        }
    }
    bytes
}
