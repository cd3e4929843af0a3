//! The name space of a simulated disk: directories and names as they are seen, and as they are durable.
//!
//! A change of names is seen at once and durable only after a sync of a directory that it touches. After a
//! power loss the durable names plus a subset of the other changes, applied in order, make up the tree. A
//! change whose precondition fails is left out, so the result is always a possible tree.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::file::FileState;
use super::os_error;

/// A file or directory, by number; never used twice on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode(pub(super) u64);

/// The directory that every disk has.
pub(super) const ROOT: Inode = Inode(0);

/// Names by directory.
pub(super) type Names = BTreeMap<(Inode, String), Inode>;

/// A change of names.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Add {
        at: (Inode, String),
        inode: Inode,
    },
    Drop {
        at: (Inode, String),
        inode: Inode,
    },
    Move {
        from: (Inode, String),
        to: (Inode, String),
        inode: Inode,
        /// What had the name `to` before.
        replaced: Option<Inode>,
    },
}

impl Change {
    /// The directories whose names it changes.
    pub(super) fn touches(&self) -> [Inode; 2] {
        match self {
            Change::Add { at, .. } | Change::Drop { at, .. } => [at.0, at.0],
            Change::Move { from, to, .. } => [from.0, to.0],
        }
    }

    /// What it removes for good. If that is a directory, its names are gone too, durably so with this change.
    fn removes(&self) -> Option<Inode> {
        match self {
            Change::Add { .. } => None,
            Change::Drop { inode, .. } => Some(*inode),
            Change::Move { replaced, .. } => *replaced,
        }
    }
}

/// All names and files of a disk.
#[derive(Clone)]
pub(super) struct Tree {
    pub(super) seen: Names,
    pub(super) durable: Names,
    /// Not durable, in order, each with its sequence.
    pub(super) changes: Vec<(u64, Change)>,
    /// What is not a file is a directory.
    pub(super) files: BTreeMap<Inode, FileState>,
    pub(super) directories: BTreeSet<Inode>,
    /// Open handles by file.
    pub(super) open: BTreeMap<Inode, u32>,
    next_inode: u64,
    next_sequence: u64,
}

/// Applies a change if it is possible; says whether it was.
pub(super) fn apply(names: &mut Names, directories: &BTreeSet<Inode>, change: &Change) -> bool {
    match change {
        Change::Add { at, inode } => {
            let possible = !names.contains_key(at);
            if possible {
                names.insert(at.clone(), *inode);
            }
            possible
        }
        Change::Drop { at, inode } => {
            let possible = names.get(at) == Some(inode) && is_empty(names, *inode);
            if possible {
                names.remove(at);
            }
            possible
        }
        Change::Move { from, to, inode, .. } => {
            let replaceable = names.get(to).is_none_or(|old| {
                if directories.contains(old) {
                    is_empty(names, *old)
                } else {
                    !directories.contains(inode)
                }
            });
            let possible = names.get(from) == Some(inode) && replaceable;
            if possible {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            possible
        }
    }
}

fn is_empty(names: &Names, directory: Inode) -> bool {
    names_in(names, directory).next().is_none()
}

/// Names of a directory with what they name.
pub(super) fn names_in(names: &Names, directory: Inode) -> impl Iterator<Item = (&str, Inode)> {
    let from = (directory, String::new());
    names
        .range(from..)
        .take_while(move |((parent, _), _)| *parent == directory)
        .map(|((_, name), inode)| (name.as_str(), *inode))
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree {
            seen: Names::new(),
            durable: Names::new(),
            changes: Vec::new(),
            files: BTreeMap::new(),
            directories: BTreeSet::from([ROOT]),
            open: BTreeMap::new(),
            next_inode: 1,
            next_sequence: 1,
        }
    }

    pub(super) fn next_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence - 1
    }

    /// The sequence of what happened last.
    pub(super) fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    fn new_inode(&mut self) -> Inode {
        self.next_inode += 1;
        Inode(self.next_inode - 1)
    }

    /// What a path names.
    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT;
        for component in path.components() {
            let name = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name.to_string_lossy().into_owned(),
                Component::ParentDir | Component::Prefix(_) => return Err(os_error(libc::EINVAL)),
            };
            if !self.directories.contains(&at) {
                return Err(os_error(libc::ENOTDIR));
            }
            at = *self.seen.get(&(at, name)).ok_or_else(|| os_error(libc::ENOENT))?;
        }
        Ok(at)
    }

    /// The directory and the name of a path, of which the directory exists.
    fn place(&self, path: &Path) -> io::Result<(Inode, String)> {
        let name = path.file_name().ok_or_else(|| os_error(libc::EINVAL))?;
        let parent = self.find(path.parent().unwrap_or(Path::new("/")))?;
        if self.directories.contains(&parent) {
            Ok((parent, name.to_string_lossy().into_owned()))
        } else {
            Err(os_error(libc::ENOTDIR))
        }
    }

    /// The file that a path names.
    pub(super) fn find_file(&self, path: &Path) -> io::Result<Inode> {
        let inode = self.find(path)?;
        if self.files.contains_key(&inode) {
            Ok(inode)
        } else {
            Err(os_error(libc::EISDIR))
        }
    }

    pub(super) fn file(&self, inode: Inode) -> &FileState {
        self.files.get(&inode).expect("an open or named file exists")
    }

    pub(super) fn file_mut(&mut self, inode: Inode) -> &mut FileState {
        self.files.get_mut(&inode).expect("an open or named file exists")
    }

    fn change(&mut self, change: Change) {
        assert!(
            apply(&mut self.seen, &self.directories, &change),
            "the change was checked: {change:?}"
        );
        let sequence = self.next_sequence();
        self.changes.push((sequence, change));
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        let at = self.place(path)?;
        if self.seen.contains_key(&at) {
            return Err(os_error(libc::EEXIST));
        }
        let inode = self.new_inode();
        self.files.insert(inode, FileState::default());
        self.change(Change::Add { at, inode });
        Ok(inode)
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let at = self.place(path)?;
        if let Some(found) = self.seen.get(&at) {
            let exists = self.directories.contains(found);
            return if exists {
                Ok(())
            } else {
                Err(os_error(libc::EEXIST))
            };
        }
        let inode = self.new_inode();
        self.directories.insert(inode);
        self.change(Change::Add { at, inode });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let inode = *self.seen.get(&from).ok_or_else(|| os_error(libc::ENOENT))?;
        if from == to {
            return Ok(());
        }
        if let Some(old) = self.seen.get(&to) {
            match (self.directories.contains(&inode), self.directories.contains(old)) {
                (true, false) => return Err(os_error(libc::ENOTDIR)),
                (false, true) => return Err(os_error(libc::EISDIR)),
                (true, true) if !is_empty(&self.seen, *old) => return Err(os_error(libc::ENOTEMPTY)),
                _ => {}
            }
        }
        if self.is_within(to.0, inode) {
            return Err(os_error(libc::EINVAL));
        }
        let replaced = self.seen.get(&to).copied();
        self.change(Change::Move {
            from,
            to,
            inode,
            replaced,
        });
        Ok(())
    }

    /// Gives a file another name.
    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        if !self.files.contains_key(&inode) {
            return Err(os_error(libc::EPERM));
        }
        let at = self.place(to)?;
        if self.seen.contains_key(&at) {
            return Err(os_error(libc::EEXIST));
        }
        self.change(Change::Add { at, inode });
        Ok(())
    }

    /// True when `directory` is `ancestor` or lies below it.
    fn is_within(&self, mut directory: Inode, ancestor: Inode) -> bool {
        while directory != ancestor {
            let parent = self.seen.iter().find(|(_, inode)| **inode == directory);
            match parent {
                Some(((parent, _), _)) => directory = *parent,
                None => return false,
            }
        }
        true
    }

    pub(super) fn remove(&mut self, path: &Path, is_directory: bool) -> io::Result<()> {
        let at = self.place(path)?;
        let inode = *self.seen.get(&at).ok_or_else(|| os_error(libc::ENOENT))?;
        match (is_directory, self.directories.contains(&inode)) {
            (true, false) => return Err(os_error(libc::ENOTDIR)),
            (false, true) => return Err(os_error(libc::EISDIR)),
            (true, true) if !is_empty(&self.seen, inode) => return Err(os_error(libc::ENOTEMPTY)),
            _ => {}
        }
        self.change(Change::Drop { at, inode });
        Ok(())
    }

    /// Makes the changes up to this sequence durable that touch a directory. A rename between two directories
    /// is atomic, so it takes the earlier changes of the other directory along; a directory that goes takes its
    /// names along.
    pub(super) fn sync_directory(&mut self, directory: Inode, through: u64) {
        let mut synced = BTreeSet::from([directory]);
        loop {
            let before = synced.len();
            for (_, change) in self.changes.iter().filter(|(sequence, _)| *sequence <= through) {
                let [one, other] = change.touches();
                if synced.contains(&one) || synced.contains(&other) {
                    synced.extend([one, other]);
                    synced.extend(change.removes());
                }
            }
            if synced.len() == before {
                break;
            }
        }
        let changes = core::mem::take(&mut self.changes);
        for (sequence, change) in changes {
            if sequence <= through && synced.contains(&change.touches()[0]) {
                let applied = apply(&mut self.durable, &self.directories, &change);
                assert!(
                    applied,
                    "earlier changes are durable, so this one is possible: {change:?}"
                );
            } else {
                self.changes.push((sequence, change));
            }
        }
        self.collect();
    }

    /// Forgets files and directories that no name, no change and no handle leads to.
    pub(super) fn collect(&mut self) {
        let mut live: BTreeSet<Inode> = self.seen.values().chain(self.durable.values()).copied().collect();
        for (_, change) in &self.changes {
            let (Change::Add { inode, .. } | Change::Drop { inode, .. } | Change::Move { inode, .. }) =
                change;
            live.insert(*inode);
        }
        live.extend(self.open.keys().copied());
        live.insert(ROOT);
        self.files.retain(|inode, _| live.contains(inode));
        self.directories.retain(|inode| live.contains(inode));
    }

    /// Drops names that can't be reached from the root.
    pub(super) fn prune(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut waiting = vec![ROOT];
        while let Some(directory) = waiting.pop() {
            for (_, inode) in names_in(&self.seen, directory) {
                if reached.insert(inode) && self.directories.contains(&inode) {
                    waiting.push(inode);
                }
            }
        }
        self.seen.retain(|(directory, _), _| reached.contains(directory));
    }

    /// The path of a file or directory as it is seen.
    pub(super) fn path_of(&self, inode: Inode) -> Option<PathBuf> {
        if inode == ROOT {
            return Some(PathBuf::from("/"));
        }
        let ((directory, name), _) = self.seen.iter().find(|(_, named)| **named == inode)?;
        Some(self.path_of(*directory)?.join(name))
    }

    /// Bytes that files and directories take.
    pub(super) fn used_bytes(&self) -> u64 {
        let files: u64 = self.files.values().map(FileState::taken_bytes).sum();
        files + self.directories.len() as u64 * ostrakon::env::disk::BLOCK_BYTES as u64
    }
}
