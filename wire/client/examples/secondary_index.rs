//! A secondary index that never disagrees with its data: both change in one batch, or not at all.
//!
//! ```text
//! cargo run -p ostrakon-client --example secondary_index -- 127.0.0.1:5750
//! ```
//!
//! Users lie at `{users}/id/<id>` with their city as value; the index has an empty key `{users}/city/<city>/<id>` for
//! each. The tag `{users}` keeps all of them in one shard, which is what a batch needs.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of a user's own"
)]

use std::process::ExitCode;

use ostrakon_client::{Action, BatchOperation, Client, Condition, Error, Options, ScanOptions};

fn main() -> ExitCode {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:5750".to_owned());
    match run(&address) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("secondary_index: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does the index say what the data says?
fn run(address: &str) -> Result<bool, Error> {
    let mut client = Client::connect(address, Options::default())?;
    for (id, city) in [
        ("1", "Athens"),
        ("2", "Sparta"),
        ("3", "Athens"),
        ("2", "Corinth"),
        ("3", "Corinth"),
    ] {
        settle(&mut client, id, city)?;
        println!("user {id} lives in {city}");
    }
    let mut is_right = true;
    for (city, expected) in [("Athens", &["1"][..]), ("Sparta", &[]), ("Corinth", &["2", "3"])] {
        let found = users_in(&mut client, city)?;
        println!("in {city}: {found:?}");
        is_right &= found == expected;
    }
    Ok(is_right)
}

/// Writes where a user lives, and moves the entry of the index with it.
fn settle(client: &mut Client, id: &str, city: &str) -> Result<(), Error> {
    let user = format!("{{users}}/id/{id}").into_bytes();
    let new_entry = entry(city, id);
    let put = |value| Action::Put { value, ttl_ms: 0 };
    loop {
        let before = client.get(&user)?;
        let (condition, old_entry) = match &before {
            Some(before) if before.value == city.as_bytes() => return Ok(()),
            Some(before) => {
                let old_city = String::from_utf8_lossy(&before.value);
                (Condition::Version(before.version), Some(entry(&old_city, id)))
            }
            None => (Condition::Absent, None),
        };
        let mut operations = vec![operation(&user, put(city.as_bytes()), condition)];
        operations.push(operation(&new_entry, put(b""), Condition::None));
        if let Some(old_entry) = &old_entry {
            operations.push(operation(old_entry, Action::Delete, Condition::None));
        }
        // If somebody else has moved the user since the read, nothing was done: look again.
        if client.batch(&operations)?.applied {
            return Ok(());
        }
    }
}

fn entry(city: &str, id: &str) -> Vec<u8> {
    format!("{{users}}/city/{city}/{id}").into_bytes()
}

fn operation<'a>(key: &'a [u8], action: Action<'a>, condition: Condition<'a>) -> BatchOperation<'a> {
    BatchOperation {
        key,
        action,
        condition,
    }
}

/// The ids of the users who live in a city, by the index alone.
fn users_in(client: &mut Client, city: &str) -> Result<Vec<String>, Error> {
    let prefix = entry(city, "");
    let options = ScanOptions {
        keys_only: true,
        ..ScanOptions::prefix(&prefix)
    };
    let id = |entry: Result<ostrakon_client::Entry, Error>| {
        entry.map(|entry| String::from_utf8_lossy(&entry.key[prefix.len()..]).into_owned())
    };
    client.scan(options).map(id).collect()
}
