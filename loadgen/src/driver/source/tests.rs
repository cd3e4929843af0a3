//! Sources on made-up moments.

use super::*;
use crate::arrival::{Arrivals, Rate};

fn load(range: Range<u64>, router: Router) -> Source {
    Source::new(
        Draw::Load(range),
        Pace::Closed,
        End::Never,
        Instant::now(),
        router,
        2,
    )
}

fn run(mix: &str, pace: Pace, end: End, measure_from: Instant) -> Source {
    let draw = Draw::Run {
        mix: mix.parse().unwrap(),
        chooser: Box::new(KeyChooser::Uniform),
        random: Random::new(1),
        records: Arc::new(Records::new(10)),
        scan_records_max: 7,
        multi_records: 3,
        counters: Arc::new(Counters::new(1, 10)),
    };
    Source::new(draw, pace, end, measure_from, Router::Any, 2)
}

fn open(per_second: f64, origin: Instant) -> Pace {
    Pace::Open {
        schedule: Schedule::new(
            Rate::fixed(per_second),
            Arrivals::Constant,
            Duration::from_secs(1),
            0,
            1,
            1,
        ),
        origin,
        give_up_after: Duration::from_secs(10),
    }
}

fn taken(source: &mut Source, group: usize, now: Instant) -> Option<Drawn> {
    match source.take(group, now) {
        Taken::Operation(drawn) => Some(drawn),
        Taken::NotYet | Taken::Over => None,
    }
}

#[test]
fn a_load_gives_each_record_once() {
    let mut seen = vec![0; 1003];
    for part in 0..4 {
        let mut source = load(share_of(1003, part, 4), Router::Any);
        while let Some(drawn) = taken(&mut source, 0, Instant::now()) {
            assert_eq!(drawn.kind, OperationKind::Insert);
            seen[drawn.key.0 as usize] += 1;
        }
        assert!(source.is_over() && source.is_over_for(0));
    }
    assert!(seen.iter().all(|count| *count == 1));
    assert_eq!(share_of(u64::MAX, 6, 7).end, u64::MAX);
}

#[test]
fn a_run_ends_after_its_operations() {
    let now = Instant::now();
    let mut source = run("read=1", Pace::Closed, End::Operations(5), now);
    assert_eq!(std::iter::from_fn(|| taken(&mut source, 0, now)).count(), 5);
    assert_eq!(source.take(0, now), Taken::Over);
}

#[test]
fn operations_of_the_warm_up_do_not_count() {
    let now = Instant::now();
    let later = now + Duration::from_secs(3);
    let mut source = run("read=1", Pace::Closed, End::Operations(5), later);
    for _ in 0..100 {
        let drawn = taken(&mut source, 0, now).unwrap();
        assert!(!source.is_measured(drawn.due_at));
    }
    assert_eq!(std::iter::from_fn(|| taken(&mut source, 0, later)).count(), 5);
}

#[test]
fn a_run_ends_at_its_time() {
    let now = Instant::now();
    let end = now + Duration::from_secs(2);
    let mut source = run("read=1", Pace::Closed, End::At(end), now);
    assert!(taken(&mut source, 0, now).is_some());
    assert!(taken(&mut source, 0, now + Duration::from_millis(1999)).is_some());
    assert_eq!(source.take(0, end), Taken::Over);
}

#[test]
fn in_an_open_loop_operations_come_when_they_are_due() {
    let origin = Instant::now();
    let at = |milliseconds: u64| origin + Duration::from_millis(milliseconds);
    let mut source = run("read=1", open(10.0, origin), End::At(at(2000)), at(1000));
    assert_eq!(taken(&mut source, 0, at(0)).unwrap().due_at, origin);
    assert_eq!(source.take(0, at(99)), Taken::NotYet);
    // Nobody had time for five of them: they come one after the other, each with the moment it was due at.
    let late: Vec<Instant> = std::iter::from_fn(|| taken(&mut source, 0, at(550)))
        .map(|drawn| drawn.due_at)
        .collect();
    assert_eq!(late, [at(100), at(200), at(300), at(400), at(500)]);
    assert_eq!(source.next_due_at(), Some(at(600)));
    // The end does not take those away that were due before it.
    assert_eq!(std::iter::from_fn(|| taken(&mut source, 0, at(5000))).count(), 14);
    assert_eq!(source.take(0, at(5000)), Taken::Over);
    assert_eq!((source.next_due_at(), source.unstarted()), (None, 0));
}

#[test]
fn what_is_too_late_is_counted_as_unstarted() {
    let origin = Instant::now();
    let at = |milliseconds: u64| origin + Duration::from_millis(milliseconds);
    let mut source = run("read=1", open(10.0, origin), End::At(at(2000)), at(1000));
    assert!(taken(&mut source, 0, at(100)).is_some());
    assert_eq!(source.take(0, at(12_001)), Taken::Over);
    assert_eq!(source.unstarted(), 19);
    assert!(source.is_over());
}

#[test]
fn operations_wait_for_a_connection_of_their_group() {
    let router = Router::Addresses(2);
    let mut source = load(0..100, router.clone());
    let now = Instant::now();
    let (mut first, mut second) = (0, 0);
    // One group alone comes to a halt when the stash of the other one is full.
    while let Some(drawn) = taken(&mut source, 0, now) {
        assert_eq!(router.group_of(drawn.key), 0);
        first += 1;
    }
    assert_eq!(source.take(0, now), Taken::NotYet);
    assert_eq!(source.stashed, 2 * STASH_PER_CONNECTION);
    // With both asking, everything comes once.
    while !source.is_over() {
        while let Some(drawn) = taken(&mut source, 1, now) {
            assert_eq!(router.group_of(drawn.key), 1);
            second += 1;
        }
        first += usize::from(taken(&mut source, 0, now).is_some());
    }
    assert_eq!(first + second, 100);
}

#[test]
fn scans_have_every_length_and_inserts_new_records() {
    let now = Instant::now();
    let mut source = run("scan=1,insert=1", Pace::Closed, End::Operations(2000), now);
    let (mut lengths, mut next) = ([0; 8], 10);
    while let Some(drawn) = taken(&mut source, 0, now) {
        if drawn.kind == OperationKind::Insert {
            assert_eq!(drawn.key.0, next);
            source.end_insert(drawn.key);
            next += 1;
        } else {
            lengths[drawn.records as usize] += 1;
            assert!(drawn.key.0 < next);
        }
    }
    assert!(
        lengths[0] == 0 && lengths[1..].iter().all(|count| *count > 80),
        "{lengths:?}"
    );
}

#[test]
fn requests_for_several_records_name_each_once() {
    let now = Instant::now();
    let mut source = run("mget=1,mput=1", Pace::Closed, End::Operations(200), now);
    let mut wrapped = 0;
    while let Taken::Operation(drawn) = source.take(0, now) {
        assert_eq!((drawn.records, drawn.among), (3, 10));
        let keys: Vec<u64> = (0..drawn.records).map(|place| drawn.key_at(place).0).collect();
        assert!(
            keys.iter().all(|key| *key < 10) && keys[0] == drawn.key.0,
            "{keys:?}"
        );
        wrapped += u32::from(keys[2] < keys[0]);
    }
    assert!(wrapped > 0, "the record after the last one is the first");
}
