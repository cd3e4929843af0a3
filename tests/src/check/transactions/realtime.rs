//! Real time: a transaction that was answered before another was called comes before it.
//!
//! Only the edges that no path of others implies: at each call, from the transactions that were answered and
//! not yet followed by one that was both called and answered since. With p processes these are at most p per
//! transaction, where all pairs would be n.

use super::graph::{Graph, Kind};
use super::table::Table;

/// Adds the edges of real time.
pub(super) fn add_edges(table: &Table, graph: &mut Graph) {
    let all: Vec<usize> = (0..table.transactions.len()).collect();
    for (from, to) in reduced(table, &all) {
        graph.add(from, to, Kind::RealTime, 0);
    }
}

/// The pairs among `transactions` that follow each other directly in real time.
pub(super) fn reduced(table: &Table, transactions: &[usize]) -> Vec<(usize, usize)> {
    let mut events = Vec::with_capacity(transactions.len() * 2);
    for number in transactions {
        let transaction = &table.transactions[*number];
        events.push((transaction.called_at, *number, false));
        events.extend(
            transaction
                .answered_at
                .map(|answered_at| (answered_at, *number, true)),
        );
    }
    events.sort_unstable();
    let mut pairs = Vec::new();
    let mut last: Vec<(usize, usize)> = Vec::new();
    for (place, number, answer) in events {
        if answer {
            let called_at = table.transactions[number].called_at;
            // Those answered before this one was called reach later ones through it.
            last.retain(|(answered_at, _)| *answered_at > called_at);
            last.push((place, number));
        } else {
            pairs.extend(last.iter().map(|(_, before)| (*before, number)));
        }
    }
    pairs
}
