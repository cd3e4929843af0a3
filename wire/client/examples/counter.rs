//! Counts together: several threads add to one counter, and no addition is lost or made twice.
//!
//! ```text
//! cargo run -p ostrakon-client --example counter -- 127.0.0.1:5750
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of a user's own"
)]

use std::process::ExitCode;

use ostrakon_client::{Client, Error, Options};

const THREADS: u64 = 4;
const ADDITIONS: u64 = 250;

fn main() -> ExitCode {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:5750".to_owned());
    match run(&address) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("counter: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Is the count right?
fn run(address: &str) -> Result<bool, Error> {
    let key = b"example/counter";
    let mut client = Client::connect(address, Options::default())?;
    client.delete(key)?;

    let counted: Result<Vec<()>, Error> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| add_many(address, key)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no thread panics"))
            .collect()
    });
    counted?;

    // A counter is a key like any other: its value is the number in decimal digits.
    let value = client.get(key)?.expect("it was just counted up").value;
    println!("{THREADS} threads have counted to {}", value.escape_ascii());
    Ok(value == (THREADS * ADDITIONS).to_string().as_bytes())
}

/// If an answer is lost, the client sends the same addition again, and the server knows it by its name: it is made
/// once.
fn add_many(address: &str, key: &[u8]) -> Result<(), Error> {
    let mut client = Client::connect(address, Options::default())?;
    let mut before = 0;
    for _ in 0..ADDITIONS {
        let (_, number) = client.add(key, 1)?;
        assert!(number > before, "the count has gone from {before} to {number}");
        before = number;
    }
    Ok(())
}
