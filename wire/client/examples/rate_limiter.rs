//! A rate limiter: at most so many actions of one user in each window of time, over all processes.
//!
//! ```text
//! cargo run -p ostrakon-client --example rate_limiter -- 127.0.0.1:5750
//! ```
//!
//! The first action of a window makes a counter that disappears by itself when the window ends. Counting up is one
//! atomic step, so that nobody gets past the limit by being quick.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of a user's own"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ostrakon_client::{Client, Error, Options};

const LIMIT: i64 = 5;
const WINDOW_MS: u64 = 1_000;

fn main() -> ExitCode {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:5750".to_owned());
    match run(&address) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rate_limiter: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Were as many actions allowed as may be, and are some allowed again after the window?
fn run(address: &str) -> Result<bool, Error> {
    let mut client = Client::connect(address, Options::default())?;
    let user = format!("user-{}", std::process::id());
    let began = Instant::now();
    let mut allowed = 0;
    for attempt in 1..=2 * LIMIT {
        let is_allowed = allow(&mut client, &user)?;
        println!(
            "attempt {attempt}: {}",
            if is_allowed { "allowed" } else { "refused" }
        );
        allowed += i64::from(is_allowed);
    }
    // A machine that is so slow that the window has ended meanwhile proves nothing.
    if allowed != LIMIT && began.elapsed() < Duration::from_millis(WINDOW_MS) {
        return Ok(false);
    }
    let give_up = Instant::now() + Duration::from_millis(10 * WINDOW_MS);
    while Instant::now() < give_up {
        if allow(&mut client, &user)? {
            println!("allowed again after {} ms", began.elapsed().as_millis());
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(WINDOW_MS / 10));
    }
    Ok(false)
}

/// Counts an action; may it be done? The window begins with the first action that is counted.
fn allow(client: &mut Client, user: &str) -> Result<bool, Error> {
    let key = format!("rate/{user}");
    let (_, count) = client.add_with(key.as_bytes(), 1, WINDOW_MS)?;
    Ok(count <= LIMIT)
}
