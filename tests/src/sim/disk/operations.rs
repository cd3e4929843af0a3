//! What each operation does when it ends.

use std::io;
use std::path::Path;

use ostrakon::env::OpenMode;
use ostrakon::env::disk::{BLOCK_BYTES, DirEntry};

use super::blocks::{SECTORS, WriteData};
use super::faults::Planned;
use super::os_error;
use super::state::{DiskState, Flight, Request, Response};
use super::tree::{Inode, names_in};
use crate::sim::counters::FaultKind;
use crate::sim::world::World;

fn is_error(outcome: &io::Result<Response>, number: i32) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.raw_os_error() == Some(number))
}

impl DiskState {
    /// Applies an operation, with the faults that were planned for it.
    pub(super) fn perform(&mut self, world: &World, flight: &Flight) -> io::Result<Response> {
        if let Some(number) = flight.planned.error {
            let kind = if number == libc::ENOSPC {
                FaultKind::DiskFull
            } else {
                FaultKind::DiskError
            };
            world.count(kind);
            world.strike(flight.planned.place);
            self.fail(flight);
            return Err(os_error(number));
        }
        // What a lost write would leave has to be looked at before the write.
        let before = match (&flight.request, flight.planned.strike) {
            (Request::Write(inode, data, true), Some(_)) => {
                let durable = &self.tree.file(*inode).durable;
                (data.first_block..data.end_block())
                    .map(|block| durable.get(block).cloned())
                    .collect()
            }
            _ => Vec::new(),
        };
        let outcome = self.apply(world, &flight.path, &flight.request);
        if is_error(&outcome, libc::ENOSPC) {
            world.count(FaultKind::DiskFull);
        }
        if is_error(&outcome, libc::EIO) {
            // A block that can't be read.
            world.strike(flight.planned.place);
        }
        if let (Request::Write(inode, data, true), Ok(_)) = (&flight.request, &outcome) {
            let Planned { strike, place, .. } = flight.planned;
            let fate = strike.map(|strike| (strike, place, before));
            self.after_durable_write(world, *inode, data, fate);
        }
        outcome
    }

    /// What a failed operation leaves behind.
    fn fail(&mut self, flight: &Flight) {
        match &flight.request {
            // Nobody knows what of a failed write is stored.
            Request::Write(inode, data, _)
                if flight.planned.error == Some(libc::EIO)
                    && data.end() <= self.tree.file(*inode).seen_len
                    && self.fault_random.one_in(2) =>
            {
                let sectors = data.block_count as usize * SECTORS;
                let kept: Vec<bool> = (0..sectors).map(|_| self.fault_random.one_in(2)).collect();
                let file = self.tree.file_mut(*inode);
                file.seen.store_sectors(data, |sector| kept[sector]);
                file.durable.store_sectors(data, |sector| kept[sector]);
            }
            Request::Sync(inode, through) => self.tree.file_mut(*inode).doom(*through),
            // The handle is gone whatever a close says.
            Request::Close(inode) => self.close(*inode),
            _ => {}
        }
    }

    fn apply(&mut self, world: &World, path: &Path, request: &Request) -> io::Result<Response> {
        match request {
            Request::Open(mode) => self.open(path, *mode),
            Request::List => self.list(path).map(Response::Entries),
            Request::CreateDir => {
                if self.tree.find(path).is_err() && self.free_bytes() < BLOCK_BYTES as u64 {
                    return Err(os_error(libc::ENOSPC));
                }
                self.tree.create_directory(path).map(|()| Response::Done)
            }
            Request::Rename(to) => self.tree.rename(path, to).map(|()| Response::Done),
            Request::Link(to) => self.tree.link(path, to).map(|()| Response::Done),
            Request::Remove => {
                self.tree.remove(path, false)?;
                Ok(Response::Done)
            }
            Request::RemoveDir => self.tree.remove(path, true).map(|()| Response::Done),
            Request::SyncDir(through) => {
                let directory = self.tree.find(path)?;
                if !self.tree.directories.contains(&directory) {
                    return Err(os_error(libc::ENOTDIR));
                }
                self.tree.sync_directory(directory, *through);
                Ok(Response::Done)
            }
            Request::FreeBytes => {
                self.tree.find(path)?;
                Ok(Response::Number(self.free_bytes()))
            }
            Request::Read(inode, offset, len_bytes) => self.read(world, *inode, *offset, *len_bytes),
            Request::Write(inode, data, is_durable) => self.write(*inode, data, *is_durable),
            Request::Sync(inode, through) => {
                self.tree.file_mut(*inode).sync(*through);
                Ok(Response::Done)
            }
            Request::Close(inode) => {
                self.close(*inode);
                Ok(Response::Done)
            }
        }
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<Response> {
        let inode = match mode {
            OpenMode::Read | OpenMode::WriteDurable => self.tree.find_file(path)?,
            OpenMode::CreateNew | OpenMode::CreateReserved(_) => {
                let reserved_bytes = match mode {
                    OpenMode::CreateReserved(bytes) => bytes,
                    _ => 0,
                };
                if self.free_bytes() < reserved_bytes.max(BLOCK_BYTES as u64) {
                    return Err(os_error(libc::ENOSPC));
                }
                let inode = self.tree.create_file(path)?;
                self.tree.file_mut(inode).reserved_bytes = reserved_bytes;
                inode
            }
        };
        *self.tree.open.entry(inode).or_insert(0) += 1;
        Ok(Response::Opened(inode, self.tree.file(inode).seen_len))
    }

    fn close(&mut self, inode: Inode) {
        let handles = self.tree.open.get_mut(&inode).expect("it is open");
        *handles -= 1;
        if *handles == 0 {
            self.tree.open.remove(&inode);
            if self.tree.path_of(inode).is_none() {
                self.tree.collect();
            }
        }
    }

    /// In no particular order: drawn anew each time.
    fn list(&mut self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let directory = self.tree.find(path)?;
        if !self.tree.directories.contains(&directory) {
            return Err(os_error(libc::ENOTDIR));
        }
        let mut entries: Vec<DirEntry> = names_in(&self.tree.seen, directory)
            .map(|(name, inode)| DirEntry {
                name: name.to_owned(),
                len_bytes: self.tree.files.get(&inode).map_or(0, |file| file.seen_len),
                is_dir: self.tree.directories.contains(&inode),
            })
            .collect();
        for last in (1..entries.len()).rev() {
            entries.swap(last, self.fault_random.index(last + 1));
        }
        Ok(entries)
    }

    fn read(&mut self, world: &World, inode: Inode, offset: u64, len_bytes: usize) -> io::Result<Response> {
        let file = self.tree.file(inode);
        if offset + len_bytes as u64 > file.seen_len {
            let facts = format!("the file was cut to {} bytes", file.seen_len);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, facts));
        }
        let first = offset / BLOCK_BYTES as u64;
        let range = first..first + (len_bytes / BLOCK_BYTES) as u64;
        if file.unreadable.range(range).next().is_some() {
            world.count(FaultKind::LatentReadError);
            return Err(os_error(libc::EIO));
        }
        Ok(Response::Bytes(file.seen.read(offset, len_bytes)))
    }

    fn write(&mut self, inode: Inode, data: &WriteData, is_durable: bool) -> io::Result<Response> {
        let grows_bytes = data.end().saturating_sub(self.tree.file(inode).taken_bytes());
        if grows_bytes > self.free_bytes() {
            return Err(os_error(libc::ENOSPC));
        }
        if is_durable {
            self.tree.file_mut(inode).write_durable(data);
        } else {
            let sequence = self.tree.next_sequence();
            self.tree.file_mut(inode).write(sequence, data.clone());
        }
        Ok(Response::Done)
    }
}
