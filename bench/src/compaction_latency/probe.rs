//! One client with a small fixed rate of gets and puts, and what it saw.
//!
//! It sends one request at a time. While it keeps up, a latency begins when the request is sent; a request that was due
//! while an earlier one was not answered has waited since it was due, and that counts (no coordinated omission). What
//! the timer is late by does not.

use std::time::{Duration, Instant};

use loadgen::keys::{Key, KeyIndex};
use loadgen::random::Random;
use ostrakon_client::{Client, Options};

use crate::machine;
use crate::statistics::Latencies;

/// What the client does.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Records that were loaded; it chooses among them uniformly.
    pub records: u64,
    /// Bytes of its values.
    pub value_bytes: usize,
    /// Requests a second, gets and puts in turn.
    pub per_second: u64,
    /// How long it goes on.
    pub duration: Duration,
    /// The time is divided into so many parts.
    pub parts: usize,
    /// CPU of its thread.
    pub cpu: usize,
}

/// What it saw in a part of the time.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Gets.
    pub gets: Latencies,
    /// Puts.
    pub puts: Latencies,
    /// The server's part of the gets: from the receipt of a request to its answer.
    pub served_gets: Latencies,
    /// The server's part of the puts.
    pub served_puts: Latencies,
}

/// All that it saw.
#[derive(Debug, Default, Clone)]
pub struct Account {
    /// By part.
    pub parts: Vec<Seen>,
    /// Seconds in which nothing was answered.
    pub silent_seconds: u64,
}

impl Seen {
    /// Adds what was seen in another part.
    pub fn add(&mut self, other: &Self) {
        self.gets.add(&other.gets);
        self.puts.add(&other.puts);
        self.served_gets.add(&other.served_gets);
        self.served_puts.add(&other.served_puts);
    }
}

impl Account {
    /// Of all parts.
    pub fn whole(&self) -> Seen {
        let mut whole = Seen::default();
        for part in &self.parts {
            whole.add(part);
        }
        whole
    }
}

impl Probe {
    /// Runs it against the server at `address`.
    ///
    /// # Errors
    /// A sentence, if a request is refused or not answered, a record is missing, or a signal comes.
    pub fn run(self, address: &str) -> Result<Account, String> {
        machine::pin_thread(self.cpu)?;
        let failed = |error: ostrakon_client::Error| format!("the probing client got no answer: {error}");
        let mut client = Client::connect(address, Options::default()).map_err(failed)?;
        client.set_timings(true);
        let mut random = Random::new(self.records);
        let mut value = vec![0; self.value_bytes];
        let mut account = Account {
            parts: vec![Seen::default(); self.parts],
            silent_seconds: 0,
        };
        let mut answered = vec![0_u64; self.duration.as_secs() as usize];
        let begun = Instant::now();
        for request in 0.. {
            let due = begun + Duration::from_secs(request) / self.per_second as u32;
            if due >= begun + self.duration {
                break;
            }
            machine::check_signals()?;
            let sent = wait_until(due);
            let key = Key::of(KeyIndex(random.next_below(self.records)));
            let is_get = request.is_multiple_of(2);
            if is_get {
                if client.get(key.bytes()).map_err(failed)?.is_none() {
                    return Err(format!("the probing client missed {key}, which was loaded"));
                }
            } else {
                for word in value.chunks_exact_mut(8) {
                    word.copy_from_slice(&random.next_u64().to_le_bytes());
                }
                client.put(key.bytes(), &value).map_err(failed)?;
            }
            let now = Instant::now();
            let part = (sent - begun).as_secs_f64() / self.duration.as_secs_f64() * self.parts as f64;
            let seen = &mut account.parts[(part as usize).min(self.parts - 1)];
            let served_ns = client.last_timings().map_or(0, |timings| timings.total_ns);
            let (latencies, served) = if is_get {
                (&mut seen.gets, &mut seen.served_gets)
            } else {
                (&mut seen.puts, &mut seen.served_puts)
            };
            latencies.record((now - sent).as_nanos() as u64);
            served.record(served_ns);
            if let Some(count) = answered.get_mut((now - begun).as_secs() as usize) {
                *count += 1;
            }
        }
        account.silent_seconds = answered.iter().filter(|count| **count == 0).count() as u64;
        Ok(account)
    }
}

/// Sleeps until then, and returns from when on the request counts.
fn wait_until(due: Instant) -> Instant {
    let now = Instant::now();
    if now >= due {
        return due;
    }
    std::thread::sleep(due - now);
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_late_counts_from_when_it_was_due() {
        let now = Instant::now();
        assert_eq!(wait_until(now), now);
        let due = now + Duration::from_millis(1);
        assert!(wait_until(due) >= due);
    }

    #[test]
    fn parts_add_up() {
        let mut account = Account::default();
        for latency in [1000, 3000] {
            let mut seen = Seen::default();
            seen.gets.record(latency);
            account.parts.push(seen);
        }
        assert_eq!(account.whole().gets.count(), 2);
        assert_eq!(account.whole().puts.count(), 0);
    }
}
