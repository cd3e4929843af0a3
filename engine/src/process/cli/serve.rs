//! `ostrakon serve`: checks the machine, starts a node, tells how to reach it, drains it at a signal.
//!
//! In order: the configuration, logging, preflight, the node (which takes the directory's lock and
//! recovers), the greeting, waiting. Whatever fails on the way ends the command with one sentence, and
//! before the node has started nothing was written to the data directory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::arguments::ServeArguments;
use super::failure::Failure;
use super::{Outcome, output};
use crate::process::configuration::{Configuration, DEFAULT_ADDRESS};
use crate::process::node::{self, NodeSummary};
use crate::process::preflight::{self, Status};
use crate::process::version::VERSION;
use crate::process::{logging, signals};

/// Runs until a signal has drained the node, or the node has failed.
pub(super) fn serve(arguments: ServeArguments) -> Result<Outcome, Failure> {
    let variable = |name: &str| std::env::var_os(name);
    let configuration =
        Configuration::read(arguments.flags, arguments.config, &variable).map_err(Failure::Usage)?;
    preflight::raise_limits();
    if arguments.print_config {
        let effective = node::effective(&configuration.node_options());
        output::text(&configuration.to_toml(&effective).map_err(Failure::Failed)?)?;
        return Ok(Outcome::Done);
    }
    let failed = |error: &dyn std::error::Error| Failure::Failed(error.to_string());
    let _logging = logging::start(&configuration.log).map_err(|error| failed(&error))?;
    preflight(&configuration)?;
    let node = node::start(configuration.node_options()).map_err(|error| failed(&error))?;
    let shutdown = node.command_sender();
    let _signals = signals::watch(move |signal| {
        tracing::info!("{signal}: draining; a second signal stops at once");
        // It fails only if the node has already ended, which is what was asked for.
        let _ = shutdown.send(node::OperatorCommand::Drain);
    })
    .map_err(|error| Failure::Failed(format!("cannot catch signals: {error}")))?;
    // A node serves its clients also when nobody reads what it prints.
    let _ = output::text(&greeting(node.address(), &node.summary()));
    node.wait().map_err(|error| failed(&error))?;
    tracing::info!("drained and closed");
    Ok(Outcome::Done)
}

fn preflight(configuration: &Configuration) -> Result<(), Failure> {
    let checks = preflight::quick_checks(&configuration.intent());
    for check in checks.iter().filter(|check| check.status == Status::Warning) {
        tracing::warn!("{}", check.sentence());
    }
    match preflight::refusal(&checks) {
        Some(refusal) => Err(Failure::Failed(format!("cannot start here: {refusal}"))),
        None => Ok(()),
    }
}

/// What a user sees when the node is ready.
fn greeting(address: SocketAddr, summary: &NodeSummary) -> String {
    let NodeSummary {
        cores,
        shards,
        recovered_entries,
        recovery_ms,
        ..
    } = summary;
    let data = std::path::absolute(&summary.data_dir).unwrap_or_else(|_| summary.data_dir.clone());
    let connect = connect_option(address);
    let (high, low) = summary.cluster_id;
    let http = summary
        .http
        .map_or_else(|| "off".to_owned(), |address| format!("http://{address}/metrics"));
    format!(
        "ostrakon {VERSION} is ready\n\n  \
           address    {address}\n  \
           http       {http}\n  \
           data       {}\n  \
           cluster    {high:016x}{low:016x}\n  \
           cores      {cores}\n  \
           shards     {shards}\n  \
           recovered  {recovered_entries} log entries in {recovery_ms} ms\n\n\
         In another terminal:\n\n  \
           ostrakon put{connect} greeting hello\n  \
           ostrakon get{connect} greeting\n\n\
         Ctrl-C or SIGTERM stops it.\n",
        data.display(),
    )
}

/// What a client on this machine has to add to reach an address; nothing for the default.
fn connect_option(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port()).to_string();
    if address == DEFAULT_ADDRESS {
        String::new()
    } else {
        format!(" --connect {address}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_shows_an_address_that_can_be_connected_to() {
        for (listening, option) in [
            ("127.0.0.1:5750", ""),
            ("0.0.0.0:5750", ""),
            ("127.0.0.1:7000", " --connect 127.0.0.1:7000"),
            ("[::]:5750", " --connect [::1]:5750"),
            ("10.0.0.7:5750", " --connect 10.0.0.7:5750"),
        ] {
            assert_eq!(connect_option(listening.parse().unwrap()), option);
        }
    }
}
