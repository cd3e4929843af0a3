//! The single voter's life as the paper has it: vote, lead, commit only its own term, serve after that.

use super::*;

fn recovered(term: u64, last_index: u64, last_term: u64) -> Raft {
    let last = EntryId {
        term: Term(last_term),
        index: LogIndex(last_index),
    };
    let hard_state = HardState {
        term: Term(term),
        vote: ReplicaId(1),
    };
    Raft::recovered(ReplicaId(1), hard_state, last, LogIndex(last_index))
}

fn step(raft: &mut Raft, input: Input) -> Outputs {
    let mut outputs = Outputs::default();
    raft.step(input, &mut outputs).expect("accepted");
    outputs
}

#[test]
fn section_5_2_the_vote_is_durable_before_it_leads() {
    let mut raft = recovered(3, 7, 3);
    let outputs = step(&mut raft, Input::Campaign);
    assert_eq!(
        outputs.hard_state,
        Some(HardState {
            term: Term(4),
            vote: ReplicaId(1)
        })
    );
    assert!(!outputs.became_leader);
    assert_eq!(
        raft.step(Input::Propose, &mut Outputs::default()),
        Err(StepError::NotLeader)
    );
    assert!(
        !step(&mut raft, Input::HardStateDurable { term: Term(3) }).became_leader,
        "an older term"
    );
    assert!(step(&mut raft, Input::HardStateDurable { term: Term(4) }).became_leader);
    assert!(!raft.may_serve());
}

#[test]
fn section_5_4_2_and_8_serves_after_an_entry_of_its_own_term() {
    let mut raft = recovered(3, 7, 3);
    step(&mut raft, Input::Campaign);
    step(&mut raft, Input::HardStateDurable { term: Term(4) });
    let first = step(&mut raft, Input::Propose).append.expect("appended");
    assert_eq!(
        first,
        EntryId {
            term: Term(4),
            index: LogIndex(8)
        }
    );
    step(&mut raft, Input::Propose);
    assert_eq!(
        step(&mut raft, Input::LogDurable { through: LogIndex(8) }).raft_committed,
        Some(LogIndex(8))
    );
    assert!(!raft.may_serve(), "committed is not applied");
    step(&mut raft, Input::Applied { through: LogIndex(8) });
    assert!(raft.may_serve());
    assert_eq!(
        step(&mut raft, Input::LogDurable { through: LogIndex(8) }).raft_committed,
        None,
        "repeated"
    );
    assert_eq!(
        step(&mut raft, Input::LogDurable { through: LogIndex(9) }).raft_committed,
        Some(LogIndex(9))
    );
}

#[test]
#[should_panic(expected = "not raft-committed")]
fn applying_ahead_of_the_commit_is_a_bug() {
    let mut raft = recovered(0, 0, 0);
    step(&mut raft, Input::Campaign);
    step(&mut raft, Input::HardStateDurable { term: Term(1) });
    step(&mut raft, Input::Propose);
    step(&mut raft, Input::Applied { through: LogIndex(1) });
}

#[test]
#[should_panic(expected = "beyond the log's end")]
fn durability_of_an_entry_that_was_never_appended_is_a_bug() {
    step(
        &mut recovered(1, 5, 1),
        Input::LogDurable { through: LogIndex(6) },
    );
}
