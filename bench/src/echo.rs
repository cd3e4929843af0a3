//! A bare echo on glommio: what the runtime and the network cost a server that does nothing else.
//!
//! It runs in a process of its own, this program under a hidden subcommand ([`serve`]), pinned like the servers
//! that it is compared with ([`Echo`]). It has one executor and one task per connection, and sends back what it
//! reads.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::rc::Rc;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

use crate::process::{self, Process};

/// The name of the hidden subcommand.
pub const SUBCOMMAND: &str = "echo-server";

/// Room for one read.
const READ_BYTES: usize = 64 * 1024;

/// A running echo.
#[derive(Debug)]
pub struct Echo {
    process: Process,
    address: String,
}

impl Echo {
    /// Starts it, pinned to one CPU, and waits until it listens.
    ///
    /// # Errors
    /// A sentence, if it does not come up.
    pub fn start(cpu: usize) -> Result<Self, String> {
        let program = std::env::current_exe()
            .map_err(|error| format!("cannot tell where this program lies: {error}"))?;
        let mut command = Command::new(program);
        command.args([SUBCOMMAND, "--cpu", &cpu.to_string()]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        process::pin_command(&mut command, cpu);
        let mut process = Process::start("the echo", &mut command, libc::SIGKILL)?;
        let output = process
            .child()
            .stdout
            .take()
            .ok_or("the echo's output is not a pipe")?;
        let mut greeting = String::new();
        let read = BufReader::new(output).read_line(&mut greeting);
        read.map_err(|error| format!("the echo said nothing: {error}"))?;
        match greeting.trim().strip_prefix("address ") {
            Some(address) => Ok(Self {
                process,
                address: address.to_owned(),
            }),
            None => Err("the echo ended before it listened; its reason stands above".to_owned()),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// Serves on a free port of the loopback address until the process is killed.
///
/// # Errors
/// A sentence, if it cannot listen.
pub fn serve(cpu: usize) -> Result<(), String> {
    let builder = LocalExecutorBuilder::new(Placement::Fixed(cpu)).name("echo");
    let handle = builder
        .spawn(|| async move {
            let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            println!("address {address}");
            std::io::stdout().flush().map_err(|error| error.to_string())?;
            let listener = Rc::new(listener);
            loop {
                let stream = listener.accept().await.map_err(|error| error.to_string())?;
                glommio::spawn_local(repeat(stream)).detach();
            }
        })
        .map_err(|error| format!("cannot start an executor on CPU {cpu}: {error}"))?;
    handle
        .join()
        .map_err(|error| format!("the echo failed: {error}"))?
}

/// Until the other side ends the connection, or it breaks.
async fn repeat(mut stream: TcpStream) {
    let _without_delay = stream.set_nodelay(true);
    let mut room = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut room).await {
        if stream.write_all(&room[..count]).await.is_err() {
            return;
        }
        glommio::yield_if_needed().await;
    }
}
