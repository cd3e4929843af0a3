//! The rows of the comparison: which operations on which keys, by how many clients, for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loadgen::distribution::Zipfian;
use loadgen::random::{Random, mix};

/// Length of a key: a number in decimal digits, so that keys are in the order of their numbers.
pub const KEY_BYTES: usize = 16;
/// The part of the keys, neighbours all of them, that hot reads choose from.
const HOT_PARTS: u64 = 50;
/// Keys of a scan.
pub const SCAN_KEYS: usize = 100;
/// Keys of a scan of YCSB E, at most.
const SCAN_KEYS_E: u64 = 100;
/// YCSB's.
const SKEW: f64 = 0.99;

/// One row.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// It begins with an empty directory, and ends when all keys are there.
    pub is_load: bool,
    /// What is written afterwards in the background is waited for.
    pub settles: bool,
    /// Only as many clients as there are CPUs: nobody waits for a device.
    pub is_hot: bool,
    /// What it does.
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    FillInOrder,
    FillAtRandom,
    Overwrite,
    ReadHot,
    ReadCold,
    ReadMissing,
    Scan,
    Ycsb(Mix),
}

/// Percentages of a workload of YCSB (Cooper and others, "Benchmarking Cloud Serving Systems with YCSB", `SoCC` 2010,
/// table 2).
#[derive(Debug, Clone, Copy)]
struct Mix {
    read: u64,
    update: u64,
    insert: u64,
    scan: u64,
    /// Reads the keys that were inserted last, instead of those of a fixed order of heat.
    is_latest: bool,
    /// What is left is read, changed and written.
    #[expect(dead_code, reason = "it is what is left of a hundred")]
    change: u64,
}

const fn row(name: &'static str, kind: Kind) -> Row {
    Row {
        name,
        is_load: matches!(kind, Kind::FillInOrder | Kind::FillAtRandom),
        settles: matches!(kind, Kind::Overwrite),
        is_hot: matches!(kind, Kind::ReadHot),
        kind,
    }
}

const fn ycsb(name: &'static str, read: u64, update: u64, insert: u64, scan: u64, is_latest: bool) -> Row {
    let mix = Mix {
        read,
        update,
        insert,
        scan,
        is_latest,
        change: 100 - read - update - insert - scan,
    };
    row(name, Kind::Ycsb(mix))
}

/// All rows, in order. Those after a load work on its keys.
pub static ROWS: [Row; 14] = [
    row("fill sequential", Kind::FillInOrder),
    row("fill random", Kind::FillAtRandom),
    row("overwrite", Kind::Overwrite),
    row("read random hot", Kind::ReadHot),
    row("read random cold", Kind::ReadCold),
    row("read missing", Kind::ReadMissing),
    row("scan 100", Kind::Scan),
    ycsb("ycsb a", 50, 50, 0, 0, false),
    ycsb("ycsb b", 95, 5, 0, 0, false),
    ycsb("ycsb c", 100, 0, 0, 0, false),
    ycsb("ycsb d", 95, 0, 5, 0, true),
    ycsb("ycsb e", 0, 0, 5, 95, false),
    ycsb("ycsb f", 50, 0, 0, 0, false),
    row("read hot again", Kind::ReadHot),
];

/// The keys and values of a round.
#[derive(Debug)]
pub struct Data {
    keys: u64,
    value: Vec<u8>,
    value_bytes: usize,
    /// Keys that were inserted beyond those of the load.
    inserted: AtomicU64,
}

impl Data {
    /// So many keys with values of this length.
    pub fn new(keys: u64, value_bytes: usize) -> Data {
        let mut random = Random::new(7);
        let noise: Vec<u8> = (0..1 << 20).map(|_| random.next_u64() as u8).collect();
        Data {
            keys,
            value: noise,
            value_bytes,
            inserted: AtomicU64::new(0),
        }
    }

    /// Bytes of all keys and values of a load.
    pub fn bytes(&self) -> u64 {
        (self.keys + self.inserted.load(Ordering::Relaxed)) * (KEY_BYTES + self.value_bytes) as u64
    }

    /// A load begins anew.
    pub fn forget(&self) {
        self.inserted.store(0, Ordering::Relaxed);
    }

    /// Fills `value` with one that only this number has: the first half random, the rest zeros.
    pub fn value(&self, number: u64, value: &mut Vec<u8>) {
        let random_bytes = self.value_bytes / 2;
        let place = mix(number) as usize % (self.value.len() - random_bytes);
        value.clear();
        value.extend_from_slice(&self.value[place..place + random_bytes]);
        value.resize(self.value_bytes, 0);
    }
}

/// Fills `key` with the key of a number.
pub fn key(number: u64, key: &mut [u8; KEY_BYTES]) {
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Something to do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Write the key of this number, which was there or not.
    Put(u64),
    /// Read it; it is there.
    Get(u64),
    /// Read a key between this one and the next; it is not there.
    GetMissing(u64),
    /// Read so many keys from this one on.
    Scan(u64, usize),
    /// Read it, and write it.
    Change(u64),
}

impl Operation {
    /// The number of its key.
    pub fn number(self) -> u64 {
        match self {
            Operation::Put(number)
            | Operation::Get(number)
            | Operation::GetMissing(number)
            | Operation::Scan(number, _)
            | Operation::Change(number) => number,
        }
    }
}

/// A row with its data.
#[derive(Debug, Clone)]
pub struct Work {
    row: &'static Row,
    /// Keys and values.
    pub data: Arc<Data>,
    /// Clients, over all CPUs.
    pub clients: usize,
    duration: Duration,
}

impl Work {
    /// A row, by so many clients, or as many as CPUs.
    pub fn new(row: &'static Row, data: &Arc<Data>, clients: usize, cpus: usize, duration: Duration) -> Work {
        Work {
            row,
            data: Arc::clone(data),
            clients: if row.is_hot { cpus } else { clients.max(cpus) },
            duration,
        }
    }

    /// What the client in `lane` of `lanes` does.
    pub fn stream(&self, lane: usize, lanes: usize) -> Stream {
        let keys = self.data.keys;
        let zipfian = || Zipfian::new(keys, SKEW);
        Stream {
            data: Arc::clone(&self.data),
            kind: self.row.kind,
            random: Random::for_lane(self.row.name.len() as u64, lane as u64),
            ends_at: (!self.row.is_load).then(|| Instant::now() + self.duration),
            next: lane as u64,
            step: lanes as u64,
            zipfian: matches!(self.row.kind, Kind::Ycsb(_)).then(zipfian),
        }
    }
}

/// The operations of one client.
#[derive(Debug)]
pub struct Stream {
    data: Arc<Data>,
    kind: Kind,
    random: Random,
    ends_at: Option<Instant>,
    next: u64,
    step: u64,
    zipfian: Option<Zipfian>,
}

impl Stream {
    /// Was the key there before the row began?
    pub fn is_of_load(&self, number: u64) -> bool {
        number < self.data.keys
    }

    /// Makes the random choices differ from those of streams of the same lane.
    pub fn turn_to(&mut self, side: u64) {
        self.random = Random::for_lane(self.random.next_u64(), side);
    }

    /// The next one, if it is not past the end.
    pub fn next(&mut self, now: Instant) -> Option<Operation> {
        if self.ends_at.is_some_and(|end| now >= end) {
            return None;
        }
        let keys = self.data.keys;
        Some(match self.kind {
            Kind::FillInOrder => Operation::Put(self.next_of_load()?),
            Kind::FillAtRandom => Operation::Put(scatter(self.next_of_load()?, keys)),
            Kind::Overwrite => Operation::Put(self.random.next_below(keys)),
            Kind::ReadHot => {
                let hot_keys = (keys / HOT_PARTS).max(1);
                Operation::Get(keys / 2 + self.random.next_below(hot_keys))
            }
            Kind::ReadCold => Operation::Get(self.random.next_below(keys)),
            Kind::ReadMissing => Operation::GetMissing(self.random.next_below(keys)),
            Kind::Scan => Operation::Scan(self.random.next_below(keys), SCAN_KEYS),
            Kind::Ycsb(mix) => self.ycsb(mix),
        })
    }

    fn next_of_load(&mut self) -> Option<u64> {
        let number = self.next;
        self.next += self.step;
        (number < self.data.keys).then_some(number)
    }

    fn ycsb(&mut self, mix: Mix) -> Operation {
        let keys = self.data.keys;
        let rank = {
            let unit = self.random.next_unit();
            self.zipfian.as_ref().expect("made for this row").rank(unit)
        };
        let number = if mix.is_latest {
            let last = keys + self.data.inserted.load(Ordering::Relaxed) - 1;
            last.saturating_sub(rank)
        } else {
            scatter(rank, keys)
        };
        let choice = self.random.next_below(100);
        if choice < mix.read {
            Operation::Get(number)
        } else if choice < mix.read + mix.update {
            Operation::Put(number)
        } else if choice < mix.read + mix.update + mix.insert {
            Operation::Put(keys + self.data.inserted.fetch_add(1, Ordering::Relaxed))
        } else if choice < mix.read + mix.update + mix.insert + mix.scan {
            Operation::Scan(number, 1 + self.random.next_below(SCAN_KEYS_E) as usize)
        } else {
            Operation::Change(number)
        }
    }
}

/// The place of a number among `keys` when they are shuffled: each number has one of its own.
fn scatter(number: u64, keys: u64) -> u64 {
    scatter_by(0, number, keys)
}

/// The same in another order for each salt below 2^20.
pub fn scatter_by(salt: u64, number: u64, keys: u64) -> u64 {
    // Walks the cycles of a Feistel network over the next power of four until it is inside again (Black, Rogaway,
    // "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, section 3).
    let half_bits = (64 - keys.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1_u64 << half_bits) - 1;
    let mut place = number;
    loop {
        let (mut left, mut right) = (place >> half_bits, place & mask);
        for round in 0..3 {
            (left, right) = (right, left ^ (mix(right + ((4 * salt + round) << 40)) & mask));
        }
        place = left << half_bits | right;
        if place < keys {
            return place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffled_load_has_every_key_once() {
        for keys in [1, 2, 3, 1000, 4097] {
            let mut places: Vec<u64> = (0..keys).map(|number| scatter(number, keys)).collect();
            places.sort_unstable();
            assert!(places.iter().copied().eq(0..keys), "{keys} keys");
            let mut others: Vec<u64> = (0..keys).map(|number| scatter_by(3, number, keys)).collect();
            others.sort_unstable();
            assert_eq!(others, places);
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_numbers() {
        let of = |number| {
            let mut bytes = [0; KEY_BYTES];
            key(number, &mut bytes);
            bytes
        };
        assert_eq!(&of(0), b"0000000000000000");
        assert_eq!(&of(1_203), b"0000000000001203");
        assert!(of(99) < of(100));
    }

    #[test]
    fn the_clients_of_a_load_share_its_keys() {
        let data = Arc::new(Data::new(1000, 100));
        let mut numbers = Vec::new();
        for lane in 0..7 {
            let work = Work::new(&ROWS[1], &data, 7, 2, Duration::ZERO);
            let mut stream = work.stream(lane, 7);
            while let Some(operation) = stream.next(Instant::now()) {
                numbers.push(operation.number());
            }
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..1000));
    }

    #[test]
    fn values_are_of_the_length_and_differ() {
        let data = Data::new(10, 101);
        let (mut one, mut other) = (Vec::new(), Vec::new());
        data.value(1, &mut one);
        data.value(2, &mut other);
        assert_eq!((one.len(), other.len()), (101, 101));
        assert_ne!(one, other);
    }
}
