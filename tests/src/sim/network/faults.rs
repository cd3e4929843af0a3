//! Faults of the network: bad weather on links, partitions, resets, half-closed connections.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::NetworkState;
use super::stream::Segment;
use crate::sim::counters::FaultKind;
use crate::sim::faults::Place;
use crate::sim::host::HostId;
use crate::sim::world::World;

/// What may befall a segment on a link in bad weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkTrouble {
    /// It is lost and sent again after a wait that doubles.
    Loss,
    /// It arrives twice.
    Duplicate,
    /// It is held back until later ones have come.
    Reorder,
    /// It takes far longer than usual.
    Delay,
}

/// Trouble on all links of a host.
struct Weather {
    host: HostId,
    trouble: NetworkTrouble,
    per_thousand: u32,
    until_ns: u64,
}

/// A direction in which nothing arrives.
#[derive(Clone, Copy)]
struct Blocked {
    until_ns: u64,
    kind: FaultKind,
    /// Where the fault aims that blocks it, if at an operation.
    place: Option<Place>,
}

/// All links between hosts.
#[derive(Default)]
pub(in crate::sim) struct Links {
    weather: Vec<Weather>,
    /// By sending and receiving host.
    blocked: BTreeMap<(HostId, HostId), Blocked>,
    /// Segments that partitions hold back, in the order of their arrival.
    pub(super) held: Vec<((HostId, HostId), Segment)>,
}

impl Links {
    /// The kind of partition that blocks this direction, and where its fault aims.
    pub(super) fn blocks(&self, hosts: (HostId, HostId), now_ns: u64) -> Option<(FaultKind, Option<Place>)> {
        let blocked = self.blocked.get(&hosts);
        blocked
            .filter(|blocked| now_ns < blocked.until_ns)
            .map(|blocked| (blocked.kind, blocked.place))
    }

    /// Blocks a direction, unless it is blocked for longer.
    fn block(&mut self, hosts: (HostId, HostId), blocked: Blocked) {
        let known = self.blocked.entry(hosts).or_insert(blocked);
        if known.until_ns <= blocked.until_ns {
            *known = blocked;
        }
    }

    fn end(&mut self) {
        self.weather.clear();
        self.blocked.clear();
    }
}

/// How a segment will travel.
pub(super) struct Journey {
    pub(super) latency_ns: u64,
    /// A second copy comes so much later.
    pub(super) doubled_after_ns: Option<u64>,
    pub(super) is_held_back: bool,
    retransmit_ns: u64,
}

impl Journey {
    /// The segment is lost so many times before it gets through.
    pub(super) fn lose(&mut self, world: &World, times: u32) {
        for time in 0..times {
            world.count(FaultKind::SegmentLoss);
            self.latency_ns += self.retransmit_ns << time.min(6);
        }
    }
}

impl NetworkState {
    /// Draws how a segment travels now.
    pub(super) fn journey(&mut self, world: &World, hosts: (HostId, HostId)) -> Journey {
        let config = &world.config().network;
        let usual_ns = if hosts.0 == hosts.1 {
            config.loopback_ns
        } else {
            config.latency_ns
        };
        let mut journey = Journey {
            latency_ns: self.random.around(usual_ns),
            doubled_after_ns: None,
            is_held_back: false,
            retransmit_ns: config.retransmit_ns,
        };
        let now_ns = world.now_ns();
        let touches = |weather: &&Weather| {
            now_ns < weather.until_ns && (weather.host == hosts.0 || weather.host == hosts.1)
        };
        for weather in self.links.weather.iter().filter(touches) {
            if !self.fault_random.per_thousand(weather.per_thousand) {
                continue;
            }
            match weather.trouble {
                NetworkTrouble::Loss => {
                    let times = 1 + self.fault_random.below(3) as u32;
                    journey.lose(world, times);
                }
                NetworkTrouble::Duplicate => {
                    journey.doubled_after_ns = Some(self.fault_random.around(usual_ns * 4));
                }
                NetworkTrouble::Reorder => {
                    journey.is_held_back = true;
                    journey.latency_ns += self.fault_random.around(usual_ns * 6);
                }
                NetworkTrouble::Delay => {
                    world.count(FaultKind::DelaySpike);
                    journey.latency_ns += self.fault_random.between(usual_ns * 20, usual_ns * 2000);
                }
            }
        }
        journey
    }
}

impl World {
    /// Ends all faults of the network.
    pub(in crate::sim) fn heal_network(&self) {
        {
            let network = &mut *self.0.network.borrow_mut();
            network.links.end();
            network.at_operation.clear();
            network
                .streams
                .values_mut()
                .for_each(|stream| stream.reset_at = [None, None]);
        }
        self.release_links();
    }

    /// Cuts the link of two hosts for what the first sends, or for both directions, for an operation's sake.
    pub(super) fn cut_at(
        &self,
        network: &mut NetworkState,
        (from, to): (HostId, HostId),
        kind: FaultKind,
        (place, duration_ns): (Place, u64),
    ) {
        let until_ns = self.now_ns().saturating_add(duration_ns);
        let blocked = Blocked {
            until_ns,
            kind,
            place: Some(place),
        };
        network.links.block((from, to), blocked);
        if kind == FaultKind::PartitionFull {
            network.links.block((to, from), blocked);
        }
        self.at(until_ns, World::release_links);
    }

    /// Trouble on all links of a host.
    pub(in crate::sim) fn trouble_links(
        &self,
        host: HostId,
        trouble: NetworkTrouble,
        per_thousand: u32,
        duration_ns: u64,
    ) {
        let until_ns = self.now_ns().saturating_add(duration_ns);
        let links = &mut self.0.network.borrow_mut().links;
        links.weather.retain(|weather| weather.until_ns > self.now_ns());
        links.weather.push(Weather {
            host,
            trouble,
            per_thousand,
            until_ns,
        });
    }

    /// Cuts off what a host sends to a peer (all others, for `None`), and what it receives, or one of both.
    pub(in crate::sim) fn cut_links(
        &self,
        host: HostId,
        peer: Option<HostId>,
        (sends, receives): (bool, bool),
        duration_ns: u64,
    ) {
        let until_ns = self.now_ns().saturating_add(duration_ns);
        let kind = if sends && receives {
            FaultKind::PartitionFull
        } else {
            FaultKind::PartitionOneWay
        };
        {
            let links = &mut self.0.network.borrow_mut().links;
            for other in self
                .hosts()
                .into_iter()
                .filter(|other| *other != host && peer.is_none_or(|peer| peer == *other))
            {
                let directions = [(sends, (host, other)), (receives, (other, host))];
                for (_, direction) in directions.into_iter().filter(|(cut, _)| *cut) {
                    let blocked = Blocked {
                        until_ns,
                        kind,
                        place: None,
                    };
                    links.block(direction, blocked);
                }
            }
        }
        self.at(until_ns, World::release_links);
    }

    /// Resets a connection of a host once so many more bytes of one direction have arrived.
    pub(in crate::sim) fn arm_reset(&self, host: HostId, after_bytes: u64) -> bool {
        let network = &mut *self.0.network.borrow_mut();
        let Some(id) = network.pick_stream(host) else {
            return false;
        };
        let from = network.fault_random.index(2);
        let stream = network.streams.get_mut(&id).expect("picked above");
        stream.reset_at[from] = Some(stream.ends[1 - from].in_order + after_bytes);
        true
    }

    /// Closes one direction of a connection of a host.
    pub(in crate::sim) fn half_close(&self, host: HostId) -> bool {
        let network = &mut *self.0.network.borrow_mut();
        let Some(id) = network.pick_stream(host) else {
            return false;
        };
        let end = network.fault_random.index(2);
        self.close_half(network, id, end);
        true
    }
}

impl NetworkState {
    /// Connections of a host that are open both ways.
    fn open_streams(&self, host: HostId) -> impl Iterator<Item = u64> {
        let of_host = self.streams.iter().filter(move |(_, stream)| {
            stream.ends.iter().any(|end| end.host == host)
                && stream
                    .ends
                    .iter()
                    .all(|end| !end.is_closed && !end.is_reset && !end.is_end_sent)
        });
        of_host.map(|(id, _)| *id)
    }

    pub(in crate::sim) fn has_open_stream(&self, host: HostId) -> bool {
        self.open_streams(host).next().is_some()
    }

    fn pick_stream(&mut self, host: HostId) -> Option<u64> {
        let ids: Vec<u64> = self.open_streams(host).collect();
        (!ids.is_empty()).then(|| ids[self.fault_random.index(ids.len())])
    }
}
