//! A work queue: producers append at one end, workers take from the other, and each item is taken by one worker.
//!
//! ```text
//! cargo run -p ostrakon-client --example queue -- 127.0.0.1:5750
//! ```
//!
//! Items are keys under one tag, numbered in the order in which they were appended; `{queue}/next` has the next number.
//! A worker takes the first item by removing it under the condition that it still has the version that was read.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of a user's own"
)]

use std::process::ExitCode;

use ostrakon_client::{Client, Condition, Error, Options, ScanOptions};

const ITEMS: u64 = 60;
const WORKERS: usize = 3;

fn main() -> ExitCode {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:5750".to_owned());
    match run(&address) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("queue: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Was each item taken once?
fn run(address: &str) -> Result<bool, Error> {
    let mut client = Client::connect(address, Options::default())?;
    while take(&mut client)?.is_some() {}
    for number in 0..ITEMS {
        append(&mut client, format!("job {number}").as_bytes())?;
    }

    let taken: Result<Vec<Vec<Vec<u8>>>, Error> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(address))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("no worker panics"))
            .collect()
    });
    let taken = taken?;
    for (worker, items) in taken.iter().enumerate() {
        println!("worker {worker} has taken {} items", items.len());
    }
    let mut all = taken.concat();
    all.sort_unstable();
    let mut expected: Vec<Vec<u8>> = (0..ITEMS)
        .map(|number| format!("job {number}").into_bytes())
        .collect();
    expected.sort_unstable();
    Ok(all == expected)
}

fn append(client: &mut Client, item: &[u8]) -> Result<(), Error> {
    let (_, number) = client.add(b"{queue}/next", 1)?;
    client.put(format!("{{queue}}/item/{number:020}").as_bytes(), item)?;
    Ok(())
}

/// Takes the first item; `None`: there is none.
fn take(client: &mut Client) -> Result<Option<Vec<u8>>, Error> {
    loop {
        let options = ScanOptions {
            limit: 1,
            ..ScanOptions::prefix(b"{queue}/item/")
        };
        let Some(first) = client.scan(options).next().transpose()? else {
            return Ok(None);
        };
        // Another worker may have been faster; then the condition does not hold.
        let removed = client.delete_if(&first.key, Condition::Version(first.version))?;
        if removed.applied {
            return Ok(Some(first.value));
        }
    }
}

fn work(address: &str) -> Result<Vec<Vec<u8>>, Error> {
    let mut client = Client::connect(address, Options::default())?;
    let mut taken = Vec::new();
    while let Some(item) = take(&mut client)? {
        taken.push(item);
    }
    Ok(taken)
}
