//! Commands about the node itself: `status`, `stats`, `topology`, `ping`.

use serde_json::{Value as Json, json};

use super::super::failure::Failure;
use super::super::output::{self, Format};
use super::Context;

/// `status`.
pub(super) fn status(context: &mut Context) -> Result<(), Failure> {
    let status = context.link.call(ostrakon_client::Client::status)?;
    print_document(&status, context.format)
}

/// `stats`. Without JSON the counts of the latency buckets are left out: they are for programs.
pub(super) fn stats(context: &mut Context) -> Result<(), Failure> {
    let stats = context.link.call(ostrakon_client::Client::stats)?;
    print_document(&stats, context.format)
}

/// `topology`.
pub(super) fn topology(context: &mut Context) -> Result<(), Failure> {
    let topology = context.link.call(ostrakon_client::Client::topology)?;
    let of_core = |core: u16| -> Vec<usize> {
        let owners = topology.owners.iter().enumerate();
        owners
            .filter_map(|(shard, owner)| (*owner == core).then_some(shard))
            .collect()
    };
    let cores: Vec<Json> = (0..topology.cores)
        .map(|core| json!({"core": core, "shards": of_core(core)}))
        .collect();
    let document = json!({
        "cluster_id": topology.cluster_id.to_string(),
        "node_id": format!("{:016x}", topology.node_id),
        "shards": topology.owners.len(),
        "cores": cores,
    });
    print_parsed(&document, context.format)
}

/// `ping`.
pub(super) fn ping(context: &mut Context) -> Result<(), Failure> {
    // The first one connects.
    context.link.connect()?;
    let started = std::time::Instant::now();
    context.link.call(ostrakon_client::Client::ping)?;
    let round_trip_us = started.elapsed().as_secs_f64() * 1e6;
    match context.format {
        Format::Json => output::json_line(&json!({ "round_trip_us": round_trip_us })),
        _ => output::text(&format!("pong after {:.3} ms\n", round_trip_us / 1e3)),
    }
}

fn print_document(document: &str, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::text(&format!("{document}\n"));
    }
    let mut parsed: Json = serde_json::from_str(document)
        .map_err(|error| Failure::Failed(format!("what the node sent is not JSON: {error}")))?;
    remove_buckets(&mut parsed);
    print_parsed(&parsed, format)
}

fn print_parsed(document: &Json, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json_line(document),
        Format::Text => output::text(&output::aligned(document)),
        Format::Table => output::side_by_side(document),
    }
}

/// Takes the buckets of latencies out of a document.
fn remove_buckets(document: &mut Json) {
    match document {
        Json::Object(fields) => {
            fields.remove("latency_bounds_us");
            fields.remove("counts");
            fields.values_mut().for_each(remove_buckets);
        }
        Json::Array(items) => items.iter_mut().for_each(remove_buckets),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_for_programs() {
        let mut document =
            json!({"latency_bounds_us": [1.0], "cores": [{"get": {"count": 3, "counts": [1, 2]}}]});
        remove_buckets(&mut document);
        assert_eq!(document, json!({"cores": [{"get": {"count": 3}}]}));
    }
}
