//! `ostrakon serve`: checks the machine, starts a node, tells how to reach it, drains it at a signal.
//!
//! In order: the command line, logging, preflight, the node (which takes the directory's lock and
//! recovers), the greeting, waiting. Whatever fails on the way ends the command with one sentence, and
//! before the node has started nothing was written to the data directory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::arguments::{DEFAULT_ADDRESS, ServeArguments};
use super::failure::Failure;
use super::{Outcome, output};
use crate::process::node::{self, NodeOptions, NodeSummary};
use crate::process::preflight::{self, Intent, Status};
use crate::process::version::VERSION;
use crate::process::{logging, signals};

/// Runs until a signal has drained the node, or the node has failed.
pub(super) fn serve(arguments: &ServeArguments) -> Result<Outcome, Failure> {
    refuse_open_address(arguments.listen, arguments.insecure)?;
    let failed = |error: &dyn std::error::Error| Failure::Failed(error.to_string());
    let _logging = logging::start(&arguments.log).map_err(|error| failed(&error))?;
    preflight(arguments)?;
    let node = node::start(node_options(arguments)).map_err(|error| failed(&error))?;
    let shutdown = node.shutdown_sender();
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

/// Only loopback, unless the user takes the risk.
fn refuse_open_address(listen: SocketAddr, insecure: bool) -> Result<(), Failure> {
    if insecure || listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "refusing to listen on {listen}: connections are neither encrypted nor authenticated; listen on \
         {DEFAULT_ADDRESS}, or add --insecure if everybody who can reach that address may read and write all \
         data"
    )))
}

fn preflight(arguments: &ServeArguments) -> Result<(), Failure> {
    preflight::raise_limits();
    let checks = preflight::quick_checks(&Intent {
        data_directory: arguments.data.clone(),
        cores: arguments.cores,
        cpus: arguments.cpus.as_ref().map(|cpus| cpus.0.clone()),
        memory_bytes: arguments.memory,
    });
    for check in checks.iter().filter(|check| check.status == Status::Warning) {
        tracing::warn!("{}", check.sentence());
    }
    match preflight::refusal(&checks) {
        Some(refusal) => Err(Failure::Failed(format!("cannot start here: {refusal}"))),
        None => Ok(()),
    }
}

fn node_options(arguments: &ServeArguments) -> NodeOptions {
    NodeOptions {
        listen: arguments.listen,
        cores: arguments.cores,
        shards: arguments.shards,
        memory_bytes: arguments.memory,
        cpus: arguments.cpus.as_ref().map(|cpus| cpus.0.clone()),
        spin: arguments.spin,
        segment_bytes: arguments.segment_size,
        cut_corrupt_log: arguments.cut_corrupt_log,
        data_dir: arguments.data.clone(),
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
    format!(
        "ostrakon {VERSION} is ready\n\n  \
           address    {address}\n  \
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
    fn only_loopback_without_insecure() {
        for (address, loopback) in [
            ("127.0.0.1:5750", true),
            ("127.9.9.9:1", true),
            ("[::1]:5750", true),
            ("[::ffff:127.0.0.1]:5750", true),
            ("0.0.0.0:5750", false),
            ("[::]:5750", false),
            ("192.168.1.7:5750", false),
        ] {
            let listen = address.parse().unwrap();
            assert_eq!(refuse_open_address(listen, false).is_ok(), loopback, "{address}");
            assert!(refuse_open_address(listen, true).is_ok());
        }
        let refusal = refuse_open_address("0.0.0.0:1".parse().unwrap(), false).unwrap_err();
        assert!(matches!(&refusal, Failure::Usage(sentence) if sentence.contains("--insecure")));
    }

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
