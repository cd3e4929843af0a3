//! Data written on four cores are all there on one, three, four and two, with the same versions.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes and files"
)]

use std::collections::BTreeMap;

use ostrakon_client::{Answer, Client, Condition, Entry, Request, ScanOptions};
use ostrakon_tests::process::{NodeCommand, binary};

const KEYS: u32 = 4_000;
/// Requests on their way at once.
const BATCH: usize = 200;

type Contents = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

fn key(number: u32) -> Vec<u8> {
    match number % 3 {
        0 => format!("plain/{number:05}").into_bytes(),
        1 => format!("{{tag {}}}/{number:05}", number % 7).into_bytes(),
        _ => [&[0, 255, b'{'], number.to_be_bytes().as_slice()].concat(),
    }
}

/// Writes `numbers`, each with a value of the generation, and notes what was answered.
fn put(client: &mut Client, contents: &mut Contents, numbers: &[u32], generation: u32) {
    let mut pipeline = client.pipeline();
    for some in numbers.chunks(BATCH) {
        let sent: Vec<_> = some
            .iter()
            .map(|number| {
                let value = format!("{generation}/{number}/")
                    .repeat(1 + *number as usize % 40)
                    .into_bytes();
                (key(*number), pipeline.put(&key(*number), &value).unwrap(), value)
            })
            .collect();
        for (key, ticket, value) in sent {
            let Ok(Answer::Write(written)) = pipeline.wait(ticket) else {
                panic!("{key:?} is not written")
            };
            contents.insert(key, (written.version, value));
        }
    }
}

fn delete(client: &mut Client, contents: &mut Contents, numbers: &[u32]) {
    for number in numbers {
        let written = client.delete_if(&key(*number), Condition::Present).unwrap();
        assert!(written.applied, "{number} was there");
        contents.remove(&key(*number));
    }
}

fn assert_all_there(client: &mut Client, contents: &Contents, deleted: &[u32]) {
    let scanned: Result<Vec<Entry>, _> = client.scan(ScanOptions::default()).collect();
    let scanned = scanned.unwrap();
    let scanned: Contents = scanned
        .into_iter()
        .map(|entry| (entry.key, (entry.version, entry.value)))
        .collect();
    assert!(
        scanned == *contents,
        "{} keys scanned, {} written",
        scanned.len(),
        contents.len()
    );
    let mut pipeline = client.pipeline();
    let absent = deleted.iter().map(|number| key(*number));
    let keys: Vec<Vec<u8>> = contents.keys().cloned().chain(absent).collect();
    for some in keys.chunks(BATCH) {
        let tickets: Vec<_> = some
            .iter()
            .map(|key| pipeline.submit(&Request::Get { key }).unwrap())
            .collect();
        for (key, ticket) in some.iter().zip(tickets) {
            let Ok(Answer::Get(found)) = pipeline.wait(ticket) else {
                panic!("{key:?} is not read")
            };
            assert_eq!(
                found.map(|found| (found.version, found.value)).as_ref(),
                contents.get(key)
            );
        }
    }
}

#[test]
fn a_restart_with_another_number_of_cores_keeps_everything() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let command = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 4);
    let mut node = command
        .clone()
        .shards(16)
        .start()
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    let mut contents = Contents::new();
    let mut deleted: Vec<u32> = (0..KEYS).filter(|number| number % 10 == 3).collect();
    let all: Vec<u32> = (0..KEYS).collect();
    let overwritten: Vec<u32> = (0..KEYS).filter(|number| number % 4 == 0).collect();
    let mut client = node.client(None).unwrap();
    put(&mut client, &mut contents, &all, 0);
    put(&mut client, &mut contents, &overwritten, 1);
    delete(&mut client, &mut contents, &deleted);

    for (generation, cores) in [1, 3, 4, 2, 4].into_iter().enumerate() {
        if generation % 2 == 0 {
            node.kill();
        } else {
            let ended = node.terminate();
            assert!(ended.status.success(), "{ended:?}");
        }
        node = command
            .clone()
            .cores(cores)
            .start()
            .unwrap_or_else(|refusal| panic!("{cores} cores: {refusal}"));
        client = node.client(None).unwrap();
        let topology = client.topology().unwrap();
        assert_eq!((topology.cores, topology.owners.len()), (cores, 16));
        let owning: std::collections::BTreeSet<u16> = topology.owners.iter().copied().collect();
        assert_eq!(owning, (0..cores).collect(), "every core owns a shard");
        assert_all_there(&mut client, &contents, &deleted);

        let newest = contents.values().map(|(version, _)| *version).max().unwrap();
        let first = 500 * generation as u32;
        let again: Vec<u32> = (first..first + 500)
            .filter(|number| !deleted.contains(number))
            .collect();
        let before = contents.clone();
        put(&mut client, &mut contents, &again, 2 + generation as u32);
        let written = contents
            .iter()
            .filter(|(key, known)| before.get(*key) != Some(known));
        let versions: Vec<u64> = written.map(|(_, (version, _))| *version).collect();
        assert_eq!(versions.len(), again.len());
        assert!(
            versions.iter().all(|version| *version > newest),
            "a version from before the restart"
        );
        delete(&mut client, &mut contents, &again[..20]);
        deleted.extend(&again[..20]);
    }
    assert_all_there(&mut client, &contents, &deleted);
}
