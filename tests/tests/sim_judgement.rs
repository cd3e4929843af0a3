//! The judgement of refused and of successful starts: damage that a start must find and damage that it need not, words
//! that name the reason and words that do not.

use std::path::{Path, PathBuf};

use ostrakon::log::format::{BatchHeader, BatchPlace, LogId, SegmentSequence, check_batch};
use ostrakon::server::node::NodeEvent;
use ostrakon_tests::scenario::damage;
use ostrakon_tests::scenario::node::{NodeSettings, Progress, SimNode};
use ostrakon_tests::scenario::refusal::{Reason, Since, take_away};
use ostrakon_tests::scenario::storage::Storage;
use ostrakon_tests::sim::{CrashStyle, Fault, FaultAction, HostDisk, HostId, ProcessStatus, World};

const SECOND_NS: u64 = 1_000_000_000;
fn settings() -> NodeSettings {
    NodeSettings {
        cores: 2,
        shards: 16,
        segment_bytes: 1 << 20,
        storage: Storage::ample(),
    }
}

/// A node that ran once, ended cleanly, and may be started again.
struct Rested {
    world: World,
    host: HostId,
    disk: HostDisk,
}

impl Rested {
    fn new(seed: u64) -> Rested {
        let world = World::new(seed);
        let host = world.add_host("server");
        let disk = world.disk(host);
        let rested = Rested { world, host, disk };
        let node = rested.start();
        assert!(
            matches!(node.progress(), Progress::Serving(_)),
            "{:?}",
            node.events()
        );
        node.drain();
        let deadline_ns = rested.world.now_ns() + 30 * SECOND_NS;
        rested
            .world
            .run_until(deadline_ns, |_| node.status() != ProcessStatus::Running);
        assert_eq!(node.status(), ProcessStatus::Exited);
        rested
    }

    /// Starts until the node serves or has ended.
    fn start(&self) -> SimNode {
        let node = SimNode::start(&self.world, self.host, settings());
        let deadline_ns = self.world.now_ns() + 30 * SECOND_NS;
        self.world.run_until(deadline_ns, |_| {
            matches!(node.progress(), Progress::Serving(_)) || node.status() != ProcessStatus::Running
        });
        node
    }

    /// The words with which a start is refused.
    fn refusal(&self) -> String {
        let node = self.start();
        match node.progress() {
            Progress::Refused(sentence) => sentence,
            other => panic!("{other:?}, {:?}", node.events()),
        }
    }

    fn due(&self) -> Vec<String> {
        let due = damage::due(&self.disk, &self.world.data_directory());
        due.into_iter().map(|due| due.sentence).collect()
    }

    fn segment(&self) -> PathBuf {
        self.world.data_directory().join("log/0000/0000000000000001.seg")
    }

    /// The first batch with a block's end that it does not fill.
    fn padded_batch(&self) -> BatchHeader {
        let bytes = self
            .disk
            .read(&self.segment())
            .expect("the first segment is there");
        let mut offset = 0;
        loop {
            let place = BatchPlace {
                log: LogId(0),
                segment: SegmentSequence(1),
                offset,
            };
            let header = check_batch(&bytes[offset as usize..], place).expect("a batch with padding");
            if !header.content_bytes().is_multiple_of(4096) {
                return header;
            }
            offset += header.content_bytes() as u64;
        }
    }

    /// What a sentence is worth that is said of everything since the world began.
    fn reason(&self, sentence: &str) -> Result<Reason, String> {
        let now = self.world.counters();
        let since = Since {
            disk: &self.disk,
            begun_ns: 0,
            before: &ostrakon_tests::sim::Counters::default(),
            now: &now,
        };
        since.reason(sentence).map_err(|failure| failure.check)
    }
}

#[test]
fn damage_in_what_a_start_reads_is_due_and_padding_is_not() {
    let rested = Rested::new(1);
    let batch = rested.padded_batch();
    let content_end = batch.offset + batch.content_bytes() as u64;
    assert_eq!(rested.due(), [""; 0]);
    rested.disk.flip(&rested.segment(), content_end, 3);
    assert_eq!(rested.due(), [""; 0], "padding means nothing");
    rested.disk.flip(&rested.segment(), 1 << 19, 3);
    assert_eq!(rested.due(), [""; 0], "nor does a block that was never written");
    let node = rested.start();
    assert!(
        matches!(node.progress(), Progress::Serving(_)),
        "{:?}",
        node.events()
    );
    assert!(
        !node
            .events()
            .iter()
            .any(|event| matches!(event, NodeEvent::TailCut(_)))
    );
    rested.world.crash(rested.host, CrashStyle::ProcessKill);

    rested.disk.flip(&rested.segment(), content_end - 1, 3);
    let due = rested.due();
    assert!(
        due.len() == 1 && due[0].contains("0000000000000001.seg"),
        "{due:?}"
    );
    rested.disk.repair_damage();
    rested
        .disk
        .flip(&rested.world.data_directory().join("node"), 40, 1);
    assert_eq!(rested.due().len(), 1, "the identity");
}

#[test]
fn a_refusal_must_name_the_file_that_is_damaged_and_only_that_is_repaired() {
    let rested = Rested::new(2);
    let other = rested
        .world
        .data_directory()
        .join("log/0001/0000000000000001.seg");
    for file in [&rested.segment(), &other] {
        rested.disk.flip(file, 20, 0);
    }
    let sentence = rested.refusal();
    let named = rested.reason(&sentence).expect("it names the file");
    let Reason::Damage(files) = &named else {
        panic!("{named:?}: {sentence}");
    };
    assert_eq!(files.len(), 1, "{sentence}");
    let name = |path: &Path| path.to_string_lossy().into_owned();
    for wrong in [
        sentence.replace(&name(&files[0]), "/data/log/0007/0000000000000001.seg"),
        sentence.replace(" at offset 0", " at offset 4096"),
        "log: read it: Input/output error (os error 5)".to_owned(),
        "log: write it: No space left on device (os error 28)".to_owned(),
        "something is wrong".to_owned(),
    ] {
        assert_ne!(wrong, sentence);
        let said = rested.reason(&wrong);
        assert!(said.is_err(), "{wrong}: {said:?}");
    }
    take_away(&rested.disk, &named, &sentence);
    let left = rested.disk.outstanding_damage();
    assert_eq!(left.len(), 1, "the other file is as damaged as before");
    assert_ne!(left[0].path, files[0]);
    let sentence = rested.refusal();
    let named = rested.reason(&sentence).expect("it names the other file");
    assert_eq!(named, Reason::Damage(vec![left[0].path.clone()]));
    take_away(&rested.disk, &named, &sentence);
    assert!(matches!(rested.start().progress(), Progress::Serving(_)));
}

#[test]
fn errors_of_the_device_and_a_lack_of_space_are_believed_when_they_struck() {
    let rested = Rested::new(3);
    rested.disk.spoil(&rested.segment(), 0);
    assert_eq!(rested.due().len(), 1);
    let sentence = rested.refusal();
    let named = rested.reason(&sentence).expect("a read failed");
    assert_eq!(named, Reason::DeviceError, "{sentence}");
    take_away(&rested.disk, &named, &sentence);
    assert_eq!(rested.disk.unreadable_blocks(), []);

    assert!(rested.reason("too little space for a log segment").is_err());
    rested.world.inflict(&Fault {
        at_ns: 0,
        host: rested.host,
        kind: FaultAction::DiskFull {
            free_bytes: 0,
            duration_ns: 1_000 * SECOND_NS,
        },
    });
    let sentence = rested.refusal();
    let named = rested.reason(&sentence).expect("the disk is full");
    assert_eq!(named, Reason::NoSpace, "{sentence}");
    take_away(&rested.disk, &named, &sentence);
    assert!(matches!(rested.start().progress(), Progress::Serving(_)));
}
