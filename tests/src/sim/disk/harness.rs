//! What a harness may do with a disk behind the back of the process that uses it.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon::env::disk::BLOCK_BYTES;

use super::blocks::Blocks;
use super::damage::DamagedBlock;
use super::faults::CrashPoint;
use super::file::FileState;
use super::state::{DiskOperation, DiskState};
use super::tree::Tree;
use crate::sim::counters::FaultKind;
use crate::sim::host::HostId;
use crate::sim::world::World;

/// A block whose stored bytes are wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamageRecord {
    /// On which host.
    pub host: HostId,
    /// What did it.
    pub kind: FaultKind,
    /// In which file.
    pub path: PathBuf,
    /// Where the block begins.
    pub offset: u64,
    /// What should be there.
    pub right: Vec<u8>,
    /// What is there.
    pub found: Vec<u8>,
}

/// A copy of a disk: files and names, durable and not, and damage. It has no operations in flight and no open
/// files.
#[derive(Clone)]
pub struct DiskSnapshot {
    tree: Tree,
    damage: Vec<DamagedBlock>,
}

/// The disk of a host, for the harness. Nothing here takes virtual time.
#[derive(Clone)]
pub struct HostDisk {
    pub(in crate::sim) world: World,
    pub(in crate::sim) host: HostId,
}

impl HostDisk {
    fn with<R>(&self, look: impl FnOnce(&mut DiskState) -> R) -> R {
        let disk = self.world.with_host(self.host, |host| Rc::clone(&host.disk));
        look(&mut disk.borrow_mut())
    }

    /// Operations submitted since the world began; the next one gets this number.
    pub fn operations(&self) -> u64 {
        self.with(|disk| disk.operations.len() as u64)
    }

    /// What is known of each, by number.
    pub fn operation_log(&self) -> Vec<DiskOperation> {
        self.with(|disk| disk.operations.clone())
    }

    /// Of those, the ones that make something durable: durable writes, syncs of files and directories.
    pub fn sync_operations(&self) -> u64 {
        self.with(|disk| disk.sync_operations)
    }

    /// Operations that have not ended.
    pub fn in_flight(&self) -> usize {
        self.with(|disk| disk.flights.len())
    }

    /// Stops the disk around the operation with this number among those that make something durable. The
    /// harness then finds the host in [`World::take_crash_wanted`] and crashes it.
    pub fn crash_at_sync(&self, sync: u64, point: CrashPoint) {
        self.with(|disk| disk.arm_at_sync(sync, point));
    }

    /// True while the disk is stopped for a crash.
    pub fn is_frozen(&self) -> bool {
        self.with(|disk| disk.faults.is_frozen)
    }

    /// Sets the size of the disk.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.with(|disk| disk.capacity_bytes = capacity_bytes);
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> u64 {
        self.with(|disk| disk.free_bytes())
    }

    /// True if the disk had less room than it has when healthy at some time from `since_ns` on.
    pub fn was_full_since(&self, since_ns: u64) -> bool {
        self.with(|disk| disk.was_full_since(since_ns))
    }

    /// Makes a directory and those above it, durably.
    pub fn make_directory(&self, path: &Path) {
        self.with(|disk| {
            let mut ancestors: Vec<&Path> = path
                .ancestors()
                .filter(|path| path.file_name().is_some())
                .collect();
            ancestors.reverse();
            for directory in ancestors {
                disk.tree
                    .create_directory(directory)
                    .expect("its parent is a directory");
                let parent = directory.parent().and_then(|parent| disk.tree.find(parent).ok());
                let through = disk.tree.last_sequence();
                disk.tree
                    .sync_directory(parent.expect("it was made before"), through);
            }
        });
    }

    /// All files with their lengths in bytes, as they are seen, in the order of their paths.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.with(|disk| {
            let tree = &disk.tree;
            let files = tree.files.iter();
            let mut named: Vec<(PathBuf, u64)> = files
                .filter_map(|(inode, file)| Some((tree.path_of(*inode)?, file.seen_len)))
                .collect();
            named.sort();
            named
        })
    }

    /// The bytes of a file as they are seen; `None` when there is no such file.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.look(path, |file| file.seen.bytes(0, file.seen_len as usize))
    }

    /// The bytes of a file as they are durable.
    pub fn read_durable(&self, path: &Path) -> Option<Vec<u8>> {
        self.look(path, |file| file.durable.bytes(0, file.durable_len as usize))
    }

    /// Offsets of the blocks of a file that are not zero.
    pub fn stored_blocks(&self, path: &Path) -> Vec<u64> {
        let offsets = |blocks: &Blocks| blocks.indexes().map(|index| index * BLOCK_BYTES as u64).collect();
        self.look(path, |file| offsets(&file.seen)).unwrap_or_default()
    }

    fn look<R>(&self, path: &Path, look: impl FnOnce(&FileState) -> R) -> Option<R> {
        self.with(|disk| {
            disk.tree
                .find_file(path)
                .ok()
                .map(|inode| look(disk.tree.file(inode)))
        })
    }

    /// Changes bytes of a file, durably, and not as damage.
    ///
    /// # Panics
    /// When there is no such file, or it is shorter.
    pub fn write(&self, path: &Path, offset: u64, bytes: &[u8]) {
        self.with(|disk| {
            let inode = disk.tree.find_file(path).expect("the file exists");
            let file = disk.tree.file_mut(inode);
            assert!(
                offset + bytes.len() as u64 <= file.seen_len,
                "{} is shorter",
                path.display()
            );
            file.seen.put_bytes(offset, bytes);
            file.durable.put_bytes(offset, bytes);
        });
    }

    /// Removes a file, durably: as a restored older state or an operator's mistake would.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn remove(&self, path: &Path) {
        self.with(|disk| {
            disk.tree.remove(path, false).expect("the file exists");
            let parent = disk
                .tree
                .find(path.parent().unwrap_or(Path::new("/")))
                .expect("it has a parent");
            let through = disk.tree.last_sequence();
            disk.tree.sync_directory(parent, through);
        });
    }

    /// Flips one bit (0 to 7) of the byte at `offset`, durably. It counts as damage, covered or not.
    ///
    /// # Panics
    /// When there is no such file, or it is shorter.
    pub fn flip(&self, path: &Path, offset: u64, bit: u32) {
        self.with(|disk| {
            let inode = disk.tree.find_file(path).expect("the file exists");
            assert!(
                offset < disk.tree.file(inode).seen_len,
                "{} is shorter",
                path.display()
            );
            let (block, within) = (offset / BLOCK_BYTES as u64, offset % BLOCK_BYTES as u64);
            disk.flip_bit(&self.world, inode, block, within as usize * 8 + bit as usize);
        });
    }

    /// Makes the block at `offset` unreadable until it is written again or the disk is healed.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn spoil(&self, path: &Path, offset: u64) {
        self.with(|disk| {
            let inode = disk.tree.find_file(path).expect("the file exists");
            disk.tree
                .file_mut(inode)
                .unreadable
                .insert(offset / BLOCK_BYTES as u64);
        });
    }

    /// Damage that was neither written over nor removed with its file.
    pub fn outstanding_damage(&self) -> Vec<DamageRecord> {
        self.with(|disk| disk.outstanding())
    }

    /// Puts the right bytes back wherever damage is outstanding; returns the number of blocks.
    pub fn repair_damage(&self) -> usize {
        self.with(|disk| disk.repair(&|_| true))
    }

    /// Puts the right bytes back in these files only; returns the number of blocks.
    pub fn repair_damage_of(&self, files: &[PathBuf]) -> usize {
        self.with(|disk| disk.repair(&|path| files.iter().any(|file| file == path)))
    }

    /// Blocks that can't be read, as files and offsets.
    pub fn unreadable_blocks(&self) -> Vec<(PathBuf, u64)> {
        self.with(|disk| {
            let files = disk.tree.files.iter();
            let blocks = files.flat_map(|(inode, file)| file.unreadable.iter().map(|block| (*inode, *block)));
            blocks
                .filter_map(|(inode, block)| Some((disk.tree.path_of(inode)?, block * BLOCK_BYTES as u64)))
                .collect()
        })
    }

    /// Ends errors of the device that wait for operations, and makes the blocks of these files readable again.
    pub fn end_errors(&self, files: &[PathBuf]) {
        self.with(|disk| {
            disk.end_errors();
            for path in files {
                if let Ok(inode) = disk.tree.find_file(path) {
                    disk.tree.file_mut(inode).unreadable.clear();
                }
            }
        });
    }

    /// Gives the disk the room back that a fault has taken.
    pub fn add_space(&self) {
        let now_ns = self.world.now_ns();
        self.with(|disk| disk.empty(now_ns));
    }

    /// Ends all faults of this disk, as new hardware or more space would. Damage stays; blocks that could not be
    /// read are readable again.
    pub fn heal(&self) {
        self.world.heal_disk(self.host);
    }

    /// A copy of the disk.
    pub fn snapshot(&self) -> DiskSnapshot {
        self.with(|disk| {
            let mut tree = disk.tree.clone();
            tree.open.clear();
            DiskSnapshot {
                tree,
                damage: disk.damage.blocks.clone(),
            }
        })
    }

    /// Puts a copy in place of what is there, also one of another host or world with this configuration.
    ///
    /// # Panics
    /// When a process runs on the host.
    pub fn restore(&self, snapshot: &DiskSnapshot) {
        assert!(
            self.world.running_process(self.host).is_none(),
            "a process uses the disk"
        );
        self.with(|disk| {
            disk.flights.clear();
            disk.faults.crashed();
            disk.damage.cancel_fated();
            disk.tree = snapshot.tree.clone();
            disk.damage.blocks.clone_from(&snapshot.damage);
        });
    }
}
