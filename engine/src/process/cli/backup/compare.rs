//! `restore --verify`: a node's content, as one scan has it, beside that of a backup.
//!
//! Keys, values, and whether a key expires have to agree. When it does need not: what was restored has its time counted
//! anew, in whole milliseconds. What has expired by the scan may be there or not.

use core::cmp::Ordering;

use indicatif::HumanCount;
use ostrakon_client::{Entry, ScanOptions};
use serde_json::json;

use super::super::commands::Context;
use super::super::failure::Failure;
use super::super::key::escape;
use super::super::output::{self, Format};
use super::super::transfer::Progress;
use super::catalogue::Catalogue;
use super::read::{BackupEntry, BackupReader};

/// Differences that are told one by one.
const TOLD_MAX: usize = 10;

/// What was found.
#[derive(Debug, Default)]
struct Differences {
    same: u64,
    different: u64,
    told: Vec<String>,
}

impl Differences {
    fn note(&mut self, key: &[u8], what: &str) {
        self.different += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(format!("{}: {what}", escape(key)));
        }
    }

    /// Looks at what both sides have next; says on which sides to go on.
    fn look(&mut self, backup: Option<&BackupEntry>, node: Option<&Entry>, now: u64) -> (bool, bool) {
        let order = match (backup, node) {
            (None, None) => return (false, false),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(backup), Some(node)) => backup.key.cmp(&node.key),
        };
        let is_over = backup.is_some_and(|backup| backup.expires != 0 && backup.expires <= now);
        match (order, backup, node) {
            (Ordering::Less, Some(backup), _) => {
                if !is_over {
                    self.note(&backup.key, "the node does not have it");
                }
                (true, false)
            }
            (Ordering::Equal, Some(backup), Some(node)) => {
                if is_over && node.expires != 0 {
                    // It goes at about this time.
                } else if backup.value != node.value {
                    self.note(&backup.key, "its value is another one");
                } else if (backup.expires == 0) != (node.expires == 0) {
                    self.note(&backup.key, "it expires on one side only");
                } else {
                    self.same += 1;
                }
                (true, true)
            }
            (_, _, Some(node)) => {
                self.note(&node.key, "the backup does not have it");
                (false, true)
            }
            _ => (false, false),
        }
    }
}

/// Compares a backup with the node, and fails if they differ.
pub(super) fn compare(
    reader: &mut BackupReader,
    catalogue: &Catalogue,
    context: &mut Context,
) -> Result<(), Failure> {
    let progress = Progress::new("compare", None);
    let interrupt = std::sync::Arc::clone(context.link.interrupt());
    let found = context.link.run(|client, watch| {
        let mut scan = client.scan(ScanOptions::default());
        let mut of_node = watch.time(|| scan.next().transpose())?;
        // Known with the first page.
        let now = scan.snapshot();
        let mut of_backup = reader.next()?;
        let mut found = Differences::default();
        while of_node.is_some() || of_backup.is_some() {
            interrupt.check()?;
            let (backup_moves, node_moves) = found.look(of_backup.as_ref(), of_node.as_ref(), now);
            if backup_moves {
                of_backup = reader.next()?;
            }
            if node_moves {
                let entry_bytes = of_node
                    .as_ref()
                    .map_or(0, |entry| entry.key.len() + entry.value.len());
                progress.bar().inc(entry_bytes as u64);
                of_node = watch.time(|| scan.next().transpose())?;
            }
        }
        Ok(found)
    })?;
    drop(progress);
    if found.different > 0 {
        return Err(Failure::Failed(format!(
            "{} keys differ from backup {}, and {} are the same. The first that differ: {}",
            HumanCount(found.different),
            catalogue.snapshot,
            HumanCount(found.same),
            found.told.join("; ")
        )));
    }
    match context.format {
        Format::Json => output::json_line(&json!({
            "backup": catalogue.snapshot.to_string(),
            "entries": found.same,
        })),
        _ => output::text(&format!(
            "the node has what backup {} has: {} entries\n",
            catalogue.snapshot,
            HumanCount(found.same)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_backup(key: &str, value: &str, expires: u64) -> BackupEntry {
        BackupEntry {
            key: key.into(),
            value: value.into(),
            expires,
        }
    }

    fn of_node(key: &str, value: &str, expires: u64) -> Entry {
        Entry {
            key: key.into(),
            value: value.into(),
            version: 1,
            expires,
        }
    }

    /// What is told of two sides at the time 100.
    fn told(backup: &[BackupEntry], node: &[Entry]) -> Vec<String> {
        let mut found = Differences::default();
        let (mut backup, mut node) = (backup.iter(), node.iter());
        let (mut left, mut right) = (backup.next(), node.next());
        while left.is_some() || right.is_some() {
            let (backup_moves, node_moves) = found.look(left, right, 100);
            assert!(backup_moves || node_moves);
            if backup_moves {
                left = backup.next();
            }
            if node_moves {
                right = node.next();
            }
        }
        assert_eq!(found.different, found.told.len() as u64);
        found.told
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        let backup = [
            of_backup("a", "1", 0),
            of_backup("b", "1", 0),
            of_backup("d", "1", 0),
            of_backup("e", "1", 200),
        ];
        let same = [
            of_node("a", "1", 0),
            of_node("b", "1", 0),
            of_node("d", "1", 0),
            of_node("e", "1", 201),
        ];
        assert_eq!(told(&backup, &same), Vec::<String>::new());
        let other = [
            of_node("b", "2", 0),
            of_node("c", "1", 0),
            of_node("d", "1", 0),
            of_node("e", "1", 0),
            of_node("f", "1", 0),
        ];
        assert_eq!(
            told(&backup, &other),
            [
                "a: the node does not have it",
                "b: its value is another one",
                "c: the backup does not have it",
                "e: it expires on one side only",
                "f: the backup does not have it",
            ]
        );
    }

    #[test]
    fn what_has_expired_may_be_there_or_not() {
        let backup = [of_backup("a", "1", 100), of_backup("b", "1", 99)];
        assert_eq!(told(&backup, &[]), Vec::<String>::new());
        assert_eq!(told(&backup, &[of_node("b", "1", 101)]), Vec::<String>::new());
        assert_eq!(told(&backup, &[of_node("b", "2", 0)]).len(), 1);
    }
}
