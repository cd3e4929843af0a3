//! How segments travel: latency, loss, doubling, reordering, partitions, and what their arrival does.

use super::faults::Journey;
use super::stream::{Payload, Segment};
use super::{NetworkState, SentSegment};
use crate::sim::counters::FaultKind;
use crate::sim::faults::{FaultAtKind, Place};
use crate::sim::host::{CrashStyle, HostId, ProcessId};
use crate::sim::trace::TraceKind;
use crate::sim::world::World;

impl World {
    /// Sends a segment from one end of a connection to the other.
    pub(super) fn transmit(
        &self,
        network: &mut NetworkState,
        stream: u64,
        from: usize,
        offset: u64,
        payload: Payload,
    ) {
        let Some(hosts) = network
            .streams
            .get(&stream)
            .map(|stream| (stream.ends[from].host, stream.ends[1 - from].host))
        else {
            return;
        };
        let sent = network.operations.entry(hosts.0).or_default();
        let place = Place {
            host: hosts.0,
            operation: sent.len() as u64,
            is_network: true,
        };
        sent.push(SentSegment {
            is_of_core: self.0.running_core.get().is_some(),
            carries_data: matches!(payload, Payload::Data(_)),
            has_arrived: false,
        });
        let segment = Segment {
            stream,
            from,
            offset,
            payload,
            place: Some(place),
            is_held_back: false,
        };
        let fault = network.at_operation.remove(&(place.host, place.operation));
        let journey = network.journey(self, hosts);
        if journey.doubled_after_ns.is_some() || matches!(fault, Some(FaultAtKind::SegmentDuplicate)) {
            network.trouble(stream, FaultKind::SegmentDuplicate);
        }
        match fault {
            Some(fault) => self.depart_struck(network, segment, journey, (hosts, place, &fault)),
            None => self.depart(segment, &journey),
        }
    }

    /// Sends a segment on its way with the fault that aims at it.
    fn depart_struck(
        &self,
        network: &mut NetworkState,
        mut segment: Segment,
        mut journey: Journey,
        (hosts, place, fault): ((HostId, HostId), Place, &FaultAtKind),
    ) {
        self.trace(hosts.0, TraceKind::Fault(format!("{fault:?} at this segment")));
        match fault {
            FaultAtKind::SegmentLoss(times) => {
                journey.lose(self, *times);
                self.strike(Some(place));
            }
            FaultAtKind::SegmentDuplicate => journey.doubled_after_ns = Some(journey.latency_ns),
            FaultAtKind::SegmentDelay(by_ns) => {
                self.count(FaultKind::DelaySpike);
                journey.latency_ns += by_ns;
                self.strike(Some(place));
            }
            FaultAtKind::SegmentReorder(patience_ns) => {
                segment.is_held_back = true;
                let (id, from) = (segment.stream, segment.from);
                let stream = network.streams.get_mut(&id).expect("it is sent on this stream");
                stream.behind[from].push(segment);
                let until_ns = self.now_ns().saturating_add(*patience_ns);
                self.at(until_ns, move |world| world.let_go(id, from, place));
                return;
            }
            FaultAtKind::PartitionOneWay(duration_ns) => {
                self.cut_at(network, hosts, FaultKind::PartitionOneWay, (place, *duration_ns));
            }
            FaultAtKind::PartitionFull(duration_ns) => {
                self.cut_at(network, hosts, FaultKind::PartitionFull, (place, *duration_ns));
            }
            FaultAtKind::ConnectionReset => {
                self.reset_connection(network, segment.stream);
                self.strike(Some(place));
                return;
            }
            FaultAtKind::Crash(_) => {
                self.count(FaultKind::CrashAtOperation);
                self.strike(Some(place));
                self.0.crash_wanted.borrow_mut().push(hosts.0);
            }
            of_process_or_disk => {
                let is_of_process = self.strike_process(place, of_process_or_disk);
                assert!(is_of_process, "{of_process_or_disk:?} is no fault of a segment");
            }
        }
        self.depart(segment, &journey);
    }

    fn depart(&self, mut segment: Segment, journey: &Journey) {
        let arrival_ns = self.now_ns() + journey.latency_ns;
        if let Some(later_ns) = journey.doubled_after_ns {
            let copy = segment.clone();
            self.at(arrival_ns + later_ns, move |world| world.arrive(copy));
        }
        segment.is_held_back |= journey.is_held_back;
        self.at(arrival_ns, move |world| world.arrive(segment));
    }

    /// A segment that waits for a later one waits no longer.
    fn let_go(&self, stream: u64, from: usize, place: Place) {
        let waiting = {
            let network = &mut *self.0.network.borrow_mut();
            let Some(found) = network.streams.get_mut(&stream) else {
                return;
            };
            let is_this = |segment: &mut Segment| segment.place == Some(place);
            found.behind[from].extract_if(.., is_this).next()
        };
        if let Some(segment) = waiting {
            self.arrive(segment);
        }
    }

    /// A segment reaches the other host, or a partition.
    pub(super) fn arrive(&self, segment: Segment) {
        let network = &mut *self.0.network.borrow_mut();
        let Some(stream) = network.streams.get(&segment.stream) else {
            return;
        };
        let hosts = (stream.ends[segment.from].host, stream.ends[1 - segment.from].host);
        if let Some((kind, place)) = network.links.blocks(hosts, self.now_ns()) {
            self.count(kind);
            self.strike(place);
            let (stream_id, from, stuck_ns) = (segment.stream, segment.from, stream.stuck_ns);
            network.links.held.push((hosts, segment));
            network.trouble(stream_id, kind);
            self.at(self.now_ns() + stuck_ns, move |world| {
                world.give_up(stream_id, from);
            });
            return;
        }
        self.deliver(network, segment);
    }

    fn deliver(&self, network: &mut NetworkState, mut segment: Segment) {
        let stream = network
            .streams
            .get_mut(&segment.stream)
            .expect("looked up by the caller");
        let to = 1 - segment.from;
        for overtaken in stream.take_overtaken(&segment) {
            self.at(self.now_ns(), move |world| world.arrive(overtaken));
        }
        if stream.note_arrival(&segment) && segment.is_held_back {
            self.count(FaultKind::SegmentReorder);
            self.strike(segment.place);
        }
        if let Some(Place { host, operation, .. }) = segment.place {
            let sent = network.operations.get_mut(&host).expect("it was sent");
            sent[operation as usize].has_arrived = true;
        }
        let (name, len_bytes) = match &segment.payload {
            Payload::Data(chunk) => ("data", chunk.len() as u64),
            Payload::End => ("end", 0),
            Payload::Reset => ("reset", 0),
            Payload::Read => ("read", 0),
        };
        self.trace(
            stream.ends[to].host,
            TraceKind::Network {
                name,
                stream: segment.stream,
                offset: segment.offset,
                len_bytes,
            },
        );
        let mut resets = false;
        if let (Payload::Data(chunk), Some(limit)) = (&mut segment.payload, stream.reset_at[segment.from])
            && segment.offset + len_bytes > limit
        {
            chunk.truncate(limit.saturating_sub(segment.offset) as usize);
            resets = true;
        }
        let end = &mut stream.ends[to];
        match segment.payload {
            Payload::Data(chunk) if end.is_closed || end.is_reset => {
                // Nobody will read it: the sender is told, once.
                drop(chunk);
                if !stream.ends[segment.from].is_reset && !stream.ends[segment.from].is_closed {
                    self.transmit(network, segment.stream, to, 0, Payload::Reset);
                }
                return;
            }
            Payload::Data(chunk) => {
                let is_new = chunk.len() == 0 || end.accept(segment.offset, Some(chunk));
                if !is_new {
                    self.count(FaultKind::SegmentDuplicate);
                    self.strike(segment.place);
                }
            }
            Payload::End => {
                // A doubled end is nothing that anybody could notice.
                end.accept(segment.offset, None);
            }
            Payload::Reset => end.reset(),
            Payload::Read => {
                end.acknowledged = end.acknowledged.max(segment.offset);
                end.sender.take().into_iter().for_each(core::task::Waker::wake);
            }
        }
        if resets {
            self.reset_connection(network, segment.stream);
        }
    }

    /// Resets both ends at once; what is on its way is lost.
    pub(super) fn reset_connection(&self, network: &mut NetworkState, stream: u64) {
        if let Some(found) = network.streams.get_mut(&stream) {
            self.count(FaultKind::ConnectionReset);
            found.ends.iter_mut().for_each(super::stream::End::reset);
            network.trouble(stream, FaultKind::ConnectionReset);
        }
    }

    /// A segment was held back for the longest time: its sender gives the connection up, and the other end
    /// learns it when the partition ends.
    fn give_up(&self, stream: u64, from: usize) {
        let network = &mut *self.0.network.borrow_mut();
        let is_of_this = |segment: &Segment| segment.stream == stream && segment.from == from;
        let is_stuck = network.links.held.iter().any(|(_, segment)| is_of_this(segment));
        let Some(found) = network.streams.get_mut(&stream) else {
            return;
        };
        if !is_stuck || found.ends[from].is_reset {
            return;
        }
        self.count(FaultKind::ConnectionReset);
        found.ends[from].reset();
        let hosts = (found.ends[from].host, found.ends[1 - from].host);
        network.links.held.retain(|(_, segment)| !is_of_this(segment));
        let reset = Segment {
            stream,
            from,
            offset: 0,
            payload: Payload::Reset,
            place: None,
            is_held_back: false,
        };
        network.links.held.push((hosts, reset));
    }

    /// Sends what partitions have held back and no longer do.
    pub(super) fn release_links(&self) {
        let network = &mut *self.0.network.borrow_mut();
        let now_ns = self.now_ns();
        let held = core::mem::take(&mut network.links.held);
        for (hosts, segment) in held {
            if network.links.blocks(hosts, now_ns).is_some() {
                network.links.held.push((hosts, segment));
            } else {
                let journey = network.journey(self, hosts);
                self.depart(segment, &journey);
            }
        }
    }

    /// The owner of an end wants no more of it.
    pub(super) fn close_end(&self, stream: u64, end: usize) {
        let network = &mut *self.0.network.borrow_mut();
        let Some(found) = network.streams.get_mut(&stream) else {
            return;
        };
        let mine = &mut found.ends[end];
        if mine.is_closed {
            return;
        }
        mine.is_closed = true;
        mine.wake_both();
        mine.forget_received();
        let (offset, tells) = (mine.sent, !mine.is_end_sent && !mine.is_reset);
        mine.is_end_sent = true;
        if found.is_over() {
            network.streams.remove(&stream);
        } else if tells {
            self.transmit(network, stream, end, offset, Payload::End);
        }
    }

    /// Ends one direction: the other end sees the end of the stream, and may go on sending.
    pub(super) fn close_half(&self, network: &mut NetworkState, stream: u64, end: usize) {
        let Some(found) = network.streams.get_mut(&stream) else {
            return;
        };
        let mine = &mut found.ends[end];
        if mine.is_closed || mine.is_reset || core::mem::replace(&mut mine.is_end_sent, true) {
            return;
        }
        self.count(FaultKind::HalfClose);
        let offset = mine.sent;
        mine.sender.take().into_iter().for_each(core::task::Waker::wake);
        network.trouble(stream, FaultKind::HalfClose);
        self.transmit(network, stream, end, offset, Payload::End);
    }

    /// A process is no more: its listeners are gone, and the other ends of its connections learn of it. An exit
    /// closes them; after a kill the operating system closes or resets them; after a power loss the other end
    /// learns it from its own next attempts.
    pub(in crate::sim) fn end_connections(&self, process: ProcessId, style: Option<CrashStyle>) {
        let network = &mut *self.0.network.borrow_mut();
        network
            .listeners
            .retain(|_, listener| listener.process != process);
        let streams: Vec<(u64, usize)> = network
            .streams
            .iter()
            .flat_map(|(id, stream)| [(*id, 0, &stream.ends[0]), (*id, 1, &stream.ends[1])])
            .filter(|(_, _, end)| end.process == process && !end.is_closed)
            .map(|(id, end, _)| (id, end))
            .collect();
        for (id, end) in streams {
            let Some(stream) = network.streams.get_mut(&id) else {
                continue;
            };
            let mine = &mut stream.ends[end];
            mine.is_closed = true;
            mine.forget_received();
            // Its tasks are about to be dropped: nobody is woken.
            (mine.receiver, mine.sender) = (None, None);
            let (offset, host) = (mine.sent, mine.host);
            let is_over = stream.is_over();
            match style {
                Some(CrashStyle::ProcessKill) => network.trouble(id, FaultKind::ProcessKill),
                Some(CrashStyle::PowerLoss) => network.trouble(id, FaultKind::PowerLoss),
                None => {}
            }
            if is_over {
                network.streams.remove(&id);
                continue;
            }
            match style {
                Some(CrashStyle::PowerLoss) => self.reset_peer_of(network, id, end, host),
                Some(CrashStyle::ProcessKill) if network.random.one_in(2) => {
                    self.transmit(network, id, end, 0, Payload::Reset);
                }
                _ => self.transmit(network, id, end, offset, Payload::End),
            }
        }
    }

    fn reset_peer_of(&self, network: &mut NetworkState, stream: u64, end: usize, host: HostId) {
        let delay_ns = network.random.between(1_000_000, 2_000_000_000);
        self.fold(u64::from(host.0));
        let segment = Segment {
            stream,
            from: end,
            offset: 0,
            payload: Payload::Reset,
            place: None,
            is_held_back: false,
        };
        self.at(self.now_ns() + delay_ns, move |world| world.arrive(segment));
    }
}
