//! Which requests are unanswered: a slab, so that taking and giving back an id neither searches nor (once
//! warm) allocates.
//!
//! Invariant: `free` holds exactly the slots that are not `open`, each once. An id names slot and generation;
//! the generation grows with each reuse of the slot, so an answer that comes twice finds no request.

use ostrakon_wire::message::Kind;

/// Identity of a request on its connection. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

impl RequestId {
    /// The number on the wire.
    pub fn number(self) -> u64 {
        self.0
    }

    /// A small number that no other unanswered request has: below the server's `requests_in_flight_max`, and
    /// as small as the most requests that were ever unanswered at once. An index for what a driver remembers
    /// of each request.
    pub fn slot(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn new(slot: u32, generation: u32) -> RequestId {
        RequestId(u64::from(generation) << u32::BITS | u64::from(slot))
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Of the request that is or was last in this slot; starts at 1, so that no id is 0.
    generation: u32,
    open: Option<Kind>,
}

#[derive(Debug, Default)]
pub(super) struct InFlight {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Opens a request.
    pub(super) fn open(&mut self, kind: Kind) -> RequestId {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.slots[slot as usize];
            assert!(entry.open.is_none(), "a free slot holds a request");
            entry.generation = entry.generation.checked_add(1).unwrap_or(1);
            entry.open = Some(kind);
            return RequestId::new(slot, entry.generation);
        }
        let slot = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: 1,
            open: Some(kind),
        });
        RequestId::new(slot, 1)
    }

    /// Closes the request with this number, if it is open, and tells what it was.
    pub(super) fn close(&mut self, number: u64) -> Option<(RequestId, Kind)> {
        let id = RequestId(number);
        let entry = self.slots.get_mut(id.slot())?;
        if u64::from(entry.generation) != number >> u32::BITS {
            return None;
        }
        let kind = entry.open.take()?;
        self.free.push(id.slot() as u32);
        Some((id, kind))
    }

    /// All open requests, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, Kind)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let kind = entry.open?;
            Some((RequestId::new(slot as u32, entry.generation), kind))
        })
    }
}
