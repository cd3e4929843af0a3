//! What the tests of whole runs share.

use clap::Parser;
use loadgen::cli::{Arguments, Configuration, CpuList, Phase};
use loadgen::kernel;
use loadgen::report::{PhaseReport, RunReport};

use crate::fake_node::FakeNode;

/// Five connections to a fake node with 500 records of 200 bytes, and what `words` say.
pub(crate) fn configuration(node: &FakeNode, words: &[&str]) -> Configuration {
    let address = node.address.to_string();
    let fixed = ["--connect", &address, "--records", "500", "--value-size", "200"];
    let connections = ["--connections", "5"];
    let connections = if words.contains(&"--connections") {
        &[][..]
    } else {
        &connections
    };
    configuration_of(&[&fixed, connections, words].concat()).unwrap()
}

/// What a command line means here.
pub(crate) fn configuration_of(words: &[&str]) -> Result<Configuration, String> {
    let words = ["loadgen"].iter().chain(words).chain(&["--quiet"]);
    let cpus = CpuList(kernel::allowed_cpus()?.0);
    let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
    arguments.into_configuration(&cpus)
}

/// The run phase of a report.
pub(crate) fn run_phase<'a>(report: &'a RunReport<'_>) -> &'a PhaseReport {
    let phase = report.phases.iter().find(|phase| phase.phase == Phase::Run);
    phase.unwrap_or_else(|| panic!("no run phase: {report}"))
}
