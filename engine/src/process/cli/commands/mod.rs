//! What the commands for a node do, on the command line and in the shell alike: each asks, prints and ends.

mod batch;
mod node;
mod read;
mod write;

use std::io::{self, BufRead, IsTerminal, Read};

use super::failure::Failure;
use super::link::Link;
use super::output::{self, Format};
use super::requests::{ClientCommand, Spelling};
use super::words::COMMAND_BYTES_MAX;
use super::{Outcome, backup, transfer};

/// Where a command runs.
#[derive(Debug)]
pub(super) struct Context {
    /// The node.
    pub(super) link: Link,
    /// How results are printed.
    pub(super) format: Format,
    /// Print after each command where its time went.
    pub(super) timing: bool,
    /// What stands in the command's words.
    pub(super) spelling: Spelling,
}

/// Whoever gives the commands.
pub(super) trait Caller {
    /// May a command read all of stdin? Not if the next commands are there.
    fn owns_stdin(&self) -> bool;

    /// The next line that belongs to the running command, without its end; `None`: there is none.
    fn next_line(&mut self, prompt: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// Shall a result go on after so many lines?
    fn wants_more(&mut self, lines: u64) -> Result<bool, Failure>;
}

/// The command line: one command, and stdin is its own.
#[derive(Debug)]
pub(super) struct CommandLine;

impl Caller for CommandLine {
    fn owns_stdin(&self) -> bool {
        true
    }

    fn next_line(&mut self, _prompt: &str) -> Result<Option<Vec<u8>>, Failure> {
        read_line(&mut io::stdin().lock(), "stdin")
    }

    fn wants_more(&mut self, _lines: u64) -> Result<bool, Failure> {
        Ok(true)
    }
}

/// Reads a line without its end from what is called `place`; `None` at the end of the input. Of a line that is longer
/// than any command it reads so much that this shows.
pub(super) fn read_line(input: &mut impl BufRead, place: &str) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let count = input
        .take(COMMAND_BYTES_MAX as u64 + 2)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::Failed(format!("cannot read {place}: {error}")))?;
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok((count > 0).then_some(line))
}

/// Runs a command to its end, then prints where its time went if that is wanted.
pub(super) fn execute(
    command: &ClientCommand,
    context: &mut Context,
    caller: &mut dyn Caller,
) -> Result<Outcome, Failure> {
    context.link.asks_for_timings = context.timing;
    let done = dispatch(command, context, caller);
    let (waited, served) = context.link.take_timings();
    if context.timing && !waited.is_zero() {
        eprintln!("{}", output::timings(waited, &served));
    }
    done.map(|()| Outcome::Done)
}

fn dispatch(command: &ClientCommand, context: &mut Context, caller: &mut dyn Caller) -> Result<(), Failure> {
    match command {
        ClientCommand::Get(arguments) => read::get(arguments, context, caller),
        ClientCommand::Put(arguments) => write::put(arguments, context, caller),
        ClientCommand::Delete(arguments) => write::delete(arguments, context),
        ClientCommand::DeleteRange(arguments) => write::delete_range(arguments, context),
        ClientCommand::Add(arguments) => write::add(arguments, context),
        ClientCommand::Mget(arguments) => read::mget(arguments, context),
        ClientCommand::Mput(arguments) => write::mput(arguments, context),
        ClientCommand::Scan(arguments) => read::scan(arguments, context, caller),
        ClientCommand::Batch(arguments) => batch::batch(arguments, context, caller),
        ClientCommand::Ttl(arguments) => read::ttl(arguments, context),
        ClientCommand::Status => node::status(context),
        ClientCommand::Stats => node::stats(context),
        ClientCommand::Topology => node::topology(context),
        ClientCommand::Ping => node::ping(context),
        ClientCommand::Import(arguments) => transfer::import(arguments, context, caller.owns_stdin()),
        ClientCommand::Export(arguments) => transfer::export(arguments, context),
        ClientCommand::Backup(arguments) => backup::backup(arguments, context),
        ClientCommand::Restore(arguments) => backup::restore(arguments, context),
    }
}

/// Tells a person what stdin is read for.
fn announce_stdin(what: &str) {
    if io::stdin().is_terminal() {
        eprintln!("ostrakon: type {what}; Ctrl-D at the start of a line ends it");
    }
}
