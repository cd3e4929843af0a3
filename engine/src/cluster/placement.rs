//! Which core owns which shard. The mapping is data: it follows from where recovery found each shard and
//! from the number of cores, and moves as few shards as an even spread allows.

use crate::env::CoreId;

/// Assigns every shard to a core. `previous[shard]` is the core whose log holds the shard now, if any; it
/// may lie beyond `cores`. No core gets more than one shard more than another.
pub fn assign(previous: &[Option<CoreId>], cores: u16) -> Vec<CoreId> {
    let cores_count = usize::from(cores);
    let mut counts = vec![0; cores_count];
    // `extra` cores may hold one shard more than the others. Who holds most keeps most.
    let share = previous.len() / cores_count;
    let mut extra = previous.len() % cores_count;
    let mut held = vec![0; cores_count];
    for core in previous
        .iter()
        .flatten()
        .filter(|core| core.index() < cores_count)
    {
        held[core.index()] += 1;
    }
    let mut by_held: Vec<usize> = (0..cores_count).collect();
    by_held.sort_by_key(|core| (core::cmp::Reverse(held[*core]), *core));
    let mut capacity = vec![share; cores_count];
    for core in by_held {
        if extra > 0 {
            capacity[core] += 1;
            extra -= 1;
        }
    }
    let mut owners: Vec<Option<CoreId>> = vec![None; previous.len()];
    for (shard, core) in previous.iter().enumerate() {
        if let Some(core) = core.filter(|core| core.index() < cores_count)
            && counts[core.index()] < capacity[core.index()]
        {
            counts[core.index()] += 1;
            owners[shard] = Some(core);
        }
    }
    let mut next = 0;
    owners
        .into_iter()
        .map(|owner| {
            owner.unwrap_or_else(|| {
                // Round robin over the cores with room, so that neighbours in hash space spread.
                while counts[next % cores_count] >= capacity[next % cores_count] {
                    next += 1;
                }
                let core = next % cores_count;
                counts[core] += 1;
                next += 1;
                CoreId(core as u16)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(owners: &[CoreId], cores: u16) -> Vec<usize> {
        (0..cores)
            .map(|core| owners.iter().filter(|owner| owner.0 == core).count())
            .collect()
    }

    fn moved(before: &[CoreId], after: &[CoreId]) -> usize {
        before
            .iter()
            .zip(after)
            .filter(|(before, after)| before != after)
            .count()
    }

    fn reassign(before: &[CoreId], cores: u16) -> Vec<CoreId> {
        assign(&before.iter().copied().map(Some).collect::<Vec<_>>(), cores)
    }

    #[test]
    fn a_new_cluster_spreads_evenly() {
        assert_eq!(spread(&assign(&[None; 64], 3), 3), [22, 21, 21]);
    }

    #[test]
    fn the_same_number_of_cores_moves_nothing() {
        let owners = assign(&[None; 64], 3);
        assert_eq!(reassign(&owners, 3), owners);
    }

    #[test]
    fn other_numbers_of_cores_move_the_fewest() {
        let four = assign(&[None; 64], 4);
        let three = reassign(&four, 3);
        assert_eq!(spread(&three, 3), [22, 21, 21]);
        assert_eq!(moved(&four, &three), 16);
        let one = reassign(&four, 1);
        assert_eq!(moved(&four, &one), 48);
        let four_again = reassign(&three, 4);
        assert_eq!(spread(&four_again, 4), [16; 4]);
        assert_eq!(moved(&three, &four_again), 16);
    }

    #[test]
    fn more_cores_than_shards_leaves_some_idle() {
        assert_eq!(spread(&assign(&[None; 2], 3), 3), [1, 1, 0]);
    }
}
