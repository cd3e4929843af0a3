//! The transaction checker against one that tries every serial order, on many small histories: good ones, and
//! the same with one read changed.

use std::collections::BTreeMap;

use ostrakon_tests::check::Verdict;
use ostrakon_tests::check::generate::{Random, Shape, Workload, generate};
use ostrakon_tests::check::history::{
    Action, Datum, EventKind, History, Observed, Operation, Outcome, Step, StepAction,
};
use ostrakon_tests::check::transactions::{self, Level, Settings};

/// True if some serial order explains every read; with real time, if one that agrees with it does.
fn serializable(left: &[&Operation], state: &BTreeMap<Datum, Observed>, real_time: bool) -> bool {
    if left.iter().all(|operation| operation.outcome == Outcome::Unknown) {
        return true;
    }
    (0..left.len()).any(|chosen| {
        let next = left[chosen];
        let is_first = left
            .iter()
            .all(|other| other.answered_at.is_none_or(|at| at > next.called_at));
        let mut rest = left.to_vec();
        rest.remove(chosen);
        let mut after = state.clone();
        (is_first || !real_time) && run(next, &mut after) && serializable(&rest, &after, real_time)
    })
}

/// Does the steps; false if a read shows something else than the state.
fn run(operation: &Operation, state: &mut BTreeMap<Datum, Observed>) -> bool {
    let Action::Transaction { steps, .. } = &operation.action else {
        return false;
    };
    steps.iter().all(|step| {
        let now = state.entry(step.key().clone()).or_insert(Observed::Nothing);
        match &step.action {
            StepAction::Read { value, .. } => operation.outcome == Outcome::Unknown || value == now,
            StepAction::Write { value, .. } => {
                *now = value.clone().map_or(Observed::Nothing, Observed::Value);
                true
            }
            StepAction::Append { element, .. } => {
                match now {
                    Observed::List(list) => list.push(element.clone()),
                    _ => *now = Observed::List(vec![element.clone()]),
                }
                true
            }
            StepAction::Add { .. } | StepAction::Check { .. } => unreachable!("no workload has these"),
        }
    })
}

/// Puts another answer into one read. False if no transaction that was done read.
fn change_one_read(history: &mut History, random: &mut Random) -> bool {
    let mut written: Vec<(Datum, Datum)> = Vec::new();
    let mut reads: Vec<&mut Step> = Vec::new();
    for event in &mut history.events {
        let Action::Transaction { steps, .. } = &mut event.action else {
            continue;
        };
        for step in steps {
            match &step.action {
                StepAction::Append { key, element: value }
                | StepAction::Write {
                    key,
                    value: Some(value),
                } => {
                    written.push((key.clone(), value.clone()));
                }
                StepAction::Read { .. } if event.kind == EventKind::Ok => reads.push(step),
                _ => (),
            }
        }
    }
    if reads.is_empty() {
        return false;
    }
    let chosen = random.below(reads.len() as u64) as usize;
    let step = reads.swap_remove(chosen);
    written.retain(|(key, _)| key == step.key());
    let chosen = random.below(written.len() as u64 + 1) as usize;
    let other = written.get(chosen).map(|(_, value)| value.clone());
    let StepAction::Read { value, .. } = &mut step.action else {
        return false;
    };
    match (&mut *value, other) {
        (Observed::List(list), _) if random.below(2) == 0 => {
            list.pop();
            if list.is_empty() {
                *value = Observed::Nothing;
            }
        }
        (Observed::List(list), Some(other)) if !list.contains(&other) => list.push(other),
        (Observed::List(list), _) => list.reverse(),
        (_, None) => *value = Observed::Nothing,
        (_, Some(other)) => *value = Observed::Value(other),
    }
    true
}

/// What both say: whether a serial order exists, and whether the checker allows the history.
fn both(history: &History, level: Level) -> (bool, bool) {
    let operations = history.operations().expect("a history");
    let done: Vec<&Operation> = operations
        .iter()
        .filter(|operation| operation.outcome != Outcome::Failed)
        .collect();
    let expected = serializable(&done, &BTreeMap::new(), level == Level::StrictSerializable);
    let verdict = transactions::check(history, &Settings::new(level)).expect("a history");
    assert!(!matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
    let text = history.to_edn();
    assert!(
        !expected || verdict.is_allowed(),
        "a serial order exists at {level:?}, but {verdict}\n{text}"
    );
    (expected, verdict.is_allowed())
}

fn small(workload: Workload, random: &mut Random) -> Shape {
    Shape {
        workload,
        operations: 3 + random.below(4),
        processes: 1 + random.below(4),
        keys: 1 + random.below(2),
        keys_last: 0,
        versions: false,
        unknown_permille: 100,
    }
}

/// For each seed a good history and one with a changed read: how many a serial order explains, and how many
/// it does not; and of the latter how many the checker allows.
fn compare(workload: Workload, level: Level, seeds: u64) -> (u64, u64, u64) {
    let (mut explained, mut unexplained, mut missed) = (0, 0, 0);
    for seed in 0..seeds {
        let mut random = Random(seed);
        let mut history = generate(&small(workload, &mut random), seed);
        assert_eq!(
            both(&history, level),
            (true, true),
            "seed {seed}: {}",
            history.to_edn()
        );
        if !change_one_read(&mut history, &mut random) || change_is_a_list_in_a_register(&history, workload) {
            continue;
        }
        match both(&history, level) {
            (true, _) => explained += 1,
            (false, allowed) => {
                unexplained += 1;
                missed += u64::from(allowed);
                let text = history.to_edn();
                assert!(
                    workload != Workload::ListAppend || !allowed,
                    "seed {seed}, {level:?}: allowed\n{text}"
                );
            }
        }
    }
    (explained, unexplained, missed)
}

/// A register's value where only lists are: not a history of this workload.
fn change_is_a_list_in_a_register(history: &History, workload: Workload) -> bool {
    let steps = history.events.iter().filter_map(|event| match &event.action {
        Action::Transaction { steps, .. } => Some(steps),
        _ => None,
    });
    let is_value = |step: &Step| {
        matches!(
            step.action,
            StepAction::Read {
                value: Observed::Value(_),
                ..
            }
        )
    };
    workload == Workload::ListAppend && steps.flatten().any(is_value)
}

#[test]
fn lists_are_judged_as_every_serial_order_does() {
    for level in [Level::StrictSerializable, Level::Serializable] {
        let (explained, unexplained, missed) = compare(Workload::ListAppend, level, 4_000);
        println!("{level:?}: {explained} explained, {unexplained} not, {missed} missed");
        assert!(explained > 30 && unexplained > 1_000 && missed == 0);
    }
}

#[test]
fn registers_are_never_refused_wrongly_and_seldom_allowed_wrongly() {
    for level in [Level::StrictSerializable, Level::Serializable] {
        let (explained, unexplained, missed) = compare(Workload::ReadWrite, level, 4_000);
        println!("{level:?}: {explained} explained, {unexplained} not, {missed} missed");
        assert!(explained > 30 && unexplained > 500, "{explained} {unexplained}");
        assert!(
            missed * 10 < unexplained,
            "{missed} of {unexplained} were allowed"
        );
    }
}
