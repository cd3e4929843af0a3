//! The text of a recorded phase and of scans, byte for byte save the times.

use ostrakon_client::{ErrorCode, Response};
use ostrakon_wire::message::Found;

use super::*;
use crate::keys::{Key, KeyIndex};
use crate::value::{self, ValueIdentity, WriteSequence};

const WRITER: WriterId = WriterId(7);
const KEY: KeyIndex = KeyIndex(3);

fn read() -> Call {
    Call {
        key: KEY,
        write: None,
    }
}

fn write(sequence: u64) -> Call {
    Call {
        key: KEY,
        write: Some(WriteSequence(sequence)),
    }
}

fn value_of(writer: WriterId, sequence: u64) -> Vec<u8> {
    let identity = ValueIdentity {
        key: KEY,
        writer,
        sequence: WriteSequence(sequence),
    };
    let mut bytes = Vec::new();
    value::fill(&mut bytes, identity, 60);
    bytes
}

/// The lines of the history without their times, and that these never fall.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let key = Key::of(KEY).to_string();
    let mut last_ns = 0;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let rest = line
            .strip_prefix(&format!("{{:index {index}, :time "))
            .expect(line);
        let (time_ns, rest) = rest.split_once(", :type :").expect(line);
        let time_ns: u64 = time_ns.parse().unwrap();
        assert!(time_ns >= last_ns, "time goes back: {line}");
        last_ns = time_ns;
        lines.push(rest.replace(&key, "KEY"));
    }
    lines
}

fn error(code: ErrorCode) -> Response<'static> {
    Response::Error(ostrakon_wire::message::ErrorReply {
        code,
        message: "",
        retry_after_ms: 0,
    })
}

#[test]
fn a_phase_of_two_threads_is_written_in_the_order_of_its_events() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.edn");
    let mut history = History::create(&path, WRITER).unwrap();
    let phase = history.begin_phase(2).unwrap();
    let (mut one, mut two) = (phase.recorder(0), phase.recorder(1));
    let (first, second) = (one.new_process(), two.new_process());
    one.called(first, write(1)).unwrap();
    two.called(second, read()).unwrap();
    let written = Response::Write {
        applied: true,
        version: 40,
    };
    one.answered(first, write(1), false, &written).unwrap();
    two.answered(second, read(), false, &Response::Get { found: None })
        .unwrap();
    two.called(second, read()).unwrap();
    let bytes = value_of(WRITER, 1);
    let found = Response::Get {
        found: Some(Found {
            version: 40,
            expires: 0,
            value: &bytes,
        }),
    };
    two.answered(second, read(), false, &found).unwrap();
    one.called(first, write(2)).unwrap();
    let next = one
        .answered(first, write(2), false, &error(ErrorCode::CoreFailed))
        .unwrap();
    assert_ne!(next, first, "a process ends with an unknown outcome");
    one.called(next, write(3)).unwrap();
    let refused = one.answered(next, write(3), false, &error(ErrorCode::Busy));
    assert_eq!(refused, Ok(next));
    one.called(next, write(4)).unwrap();
    let last = one
        .answered(next, write(4), true, &error(ErrorCode::MemoryFull))
        .unwrap();
    assert_ne!(last, next, "an earlier sending may have been applied");
    two.called(second, read()).unwrap();
    two.unanswered(second, read()).unwrap();
    one.finish().unwrap();
    two.finish().unwrap();
    history.end_phase(phase).unwrap();
    assert_eq!(
        lines(&path),
        [
            r#"invoke, :process 0, :f :write, :value ["KEY" 1]}"#,
            r#"invoke, :process 1, :f :read, :value ["KEY" nil]}"#,
            r#"ok, :process 0, :f :write, :value ["KEY" 1], :version 40}"#,
            r#"ok, :process 1, :f :read, :value ["KEY" nil], :version 0}"#,
            r#"invoke, :process 1, :f :read, :value ["KEY" nil]}"#,
            r#"ok, :process 1, :f :read, :value ["KEY" 1], :version 40}"#,
            r#"invoke, :process 0, :f :write, :value ["KEY" 2]}"#,
            r#"info, :process 0, :f :write, :value ["KEY" 2], :error "CoreFailed"}"#,
            r#"invoke, :process 2, :f :write, :value ["KEY" 3]}"#,
            r#"fail, :process 2, :f :write, :value ["KEY" 3], :error "Busy"}"#,
            r#"invoke, :process 2, :f :write, :value ["KEY" 4]}"#,
            r#"info, :process 2, :f :write, :value ["KEY" 4], :error "MemoryFull"}"#,
            r#"invoke, :process 1, :f :read, :value ["KEY" nil]}"#,
            concat!(
                r#"info, :process 1, :f :read, :value ["KEY" nil], "#,
                r#":error "the connection was lost before the answer"}"#
            ),
        ]
    );
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "the parts have no names");
}

#[test]
fn a_value_of_somebody_else_is_told_in_words() {
    let found = |bytes: &[u8]| recorder::identify(WRITER, Key::of(KEY).bytes(), bytes);
    assert_eq!(
        found(&value_of(WRITER, 5)),
        recorder::Found::Write(WriteSequence(5))
    );
    let foreign = |bytes: &[u8]| match found(bytes) {
        recorder::Found::Foreign(words) => words,
        recorder::Found::Write(sequence) => panic!("{sequence:?}"),
    };
    assert!(foreign(&value_of(WriterId(8), 5)).contains("by writer 0x0000000000000008"));
    assert!(foreign(b"bytes").contains("too short"));
    let mut damaged = value_of(WRITER, 5);
    damaged[50] ^= 1;
    assert!(foreign(&damaged).contains("damaged"));
}

#[test]
fn scans_are_transactions_over_the_range_that_they_came_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.edn");
    let mut history = History::create(&path, WRITER).unwrap();
    let mut part = history.scan_called(b"").unwrap();
    part.entry(Key::of(KEY).bytes(), 40, &value_of(WRITER, 1));
    part.entry(b"other \"key\"", 41, b"bytes");
    history.scan_answered(&part, Some(b"k\0")).unwrap();
    let rest = history.scan_called(b"k\0").unwrap();
    history.scan_answered(&rest, None).unwrap();
    let failed = history.scan_called(b"0x").unwrap();
    history.scan_failed(&failed, "gone\nnow").unwrap();
    assert_eq!(
        lines(&path),
        [
            r"invoke, :process 0, :f :txn, :value [], :scan [nil nil]}",
            concat!(
                r#"ok, :process 0, :f :txn, :value [[:r "KEY" 1] [:r "other \"key\"" "#,
                r#""a value of 5 bytes, too short for the header of 40"]], :versions [40 41], "#,
                r#":scan [nil "0x6b00"]}"#
            ),
            r#"invoke, :process 1, :f :txn, :value [], :scan ["0x6b00" nil]}"#,
            r#"ok, :process 1, :f :txn, :value [], :scan ["0x6b00" nil]}"#,
            r#"invoke, :process 2, :f :txn, :value [], :scan ["0x3078" nil]}"#,
            r#"fail, :process 2, :f :txn, :value [], :scan ["0x3078" nil], :error "gone\nnow"}"#,
        ]
    );
}

#[test]
fn a_full_disk_is_an_error_in_words() {
    let mut history = History::create(Path::new("/dev/full"), WRITER).unwrap();
    let sentence = history.scan_called(b"").map(drop).unwrap_err();
    assert!(
        sentence.contains("No space left") && sentence.contains("/dev/full"),
        "{sentence}"
    );
    let missing = History::create(Path::new("/nowhere/history.edn"), WRITER).unwrap_err();
    assert!(missing.contains("/nowhere/history.edn"), "{missing}");
}

#[test]
fn a_recorder_notices_that_nobody_writes_any_more() {
    let (sender, chunks) = sync_channel(1);
    let source = Source {
        begun_at: Instant::now(),
        processes: Arc::default(),
        writer: WRITER,
    };
    let mut recorder = Recorder::new(source, 0, sender);
    let process = recorder.new_process();
    recorder.called(process, read()).unwrap();
    drop(chunks);
    assert_eq!(recorder.finish(), Err(Stopped));
}
