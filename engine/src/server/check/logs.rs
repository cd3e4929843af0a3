//! The logs of a data directory.

use super::{Check, Loss, Told};
use crate::cluster::identity::Identity;
use crate::log::format::LogId;
use crate::log::log_directory;
use crate::log::recovery::LogChain;
use crate::log::survey::survey;

/// Looks through each log, and returns what counts of them, up to their first damage.
pub(super) async fn check(
    check: &Check<'_>,
    logs: &[LogId],
    identity: Option<&Identity>,
    segment_bytes: u64,
) -> Vec<LogChain> {
    let mut chains = Vec::new();
    let mut damaged = Vec::new();
    for log in logs {
        let directory = log_directory(check.data, *log);
        let surveyed = match survey((check.disk, check.tasks), check.data, *log, segment_bytes).await {
            Ok(surveyed) => surveyed,
            Err(error) => {
                check.damage(&directory, None, 0, error.to_string(), Loss::Log(Vec::new()));
                damaged.push(*log);
                continue;
            }
        };
        if !surveyed.damages.is_empty() {
            damaged.push(*log);
        }
        for damage in surveyed.damages {
            check.damage(
                &damage.path,
                Some(damage.offset),
                0,
                damage.finding,
                Loss::Log(damage.suspects),
            );
        }
        let chain = surveyed.chain;
        if let Some(cut) = chain.cut.as_ref().filter(|cut| !cut.is_corruption) {
            (check.tell)(Told::Torn {
                path: cut.path.clone(),
                offset: cut.offset,
                what: cut.finding.clone(),
            });
        }
        check_owner(check, &chain, identity);
        let segments = chain.segments.len() as u64;
        let read_bytes = chain.segments.iter().map(|segment| segment.end_offset).sum();
        check.count(|totals| {
            totals.files += segments;
            totals.segments += segments;
        });
        (check.tell)(Told::Read(read_bytes));
        chains.push(chain);
    }
    let known = identity.map_or(0, |identity| identity.logs);
    for log in (0..known).map(LogId) {
        let is_there = chains
            .iter()
            .any(|chain| chain.log == log && !chain.segments.is_empty());
        // Of one that can't be read it was said what is wrong.
        if !is_there && !damaged.contains(&log) {
            let what = "it is missing or has no log in it, although it had one when the node last served";
            check.damage(
                &log_directory(check.data, log),
                None,
                0,
                what.to_owned(),
                Loss::Log(Vec::new()),
            );
        }
    }
    chains
}

/// A log belongs to the node whose directory it is in.
fn check_owner(check: &Check<'_>, chain: &LogChain, identity: Option<&Identity>) {
    let (Some(head), Some(identity)) = (chain.head, identity) else {
        return;
    };
    if (head.cluster, head.node) != (identity.cluster, identity.node) {
        let what = format!(
            "it belongs to node {:016x} of cluster {:016x}{:016x}, expected node {:016x} of {:016x}{:016x}: the \
             directory was mixed up",
            head.node, head.cluster.0, head.cluster.1, identity.node, identity.cluster.0, identity.cluster.1
        );
        let directory = log_directory(check.data, chain.log);
        check.damage(&directory, None, 0, what, Loss::Node);
    }
}
