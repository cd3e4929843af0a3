//! What a running process has open: the log segments among its descriptors and the flags that they were opened with.

use std::fs;
use std::io;
use std::path::PathBuf;

/// One open log segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDescriptor {
    /// Number of the descriptor.
    pub descriptor: u32,
    /// The segment file.
    pub path: PathBuf,
    /// Flags as `open(2)` takes them, from `/proc/PID/fdinfo`.
    pub flags: i32,
}

impl LogDescriptor {
    /// Reads and writes go past the page cache.
    pub fn is_direct(&self) -> bool {
        self.flags & libc::O_DIRECT != 0
    }

    /// A write returns when its data are on stable storage.
    pub fn is_synchronous(&self) -> bool {
        self.flags & libc::O_DSYNC != 0
    }
}

/// The open `*.seg` files of a process, by descriptor.
///
/// # Errors
/// When `/proc` can't be read for this process.
pub fn log_descriptors(process_id: u32) -> io::Result<Vec<LogDescriptor>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process_id}/fd"))? {
        let entry = entry?;
        // A descriptor may be closed between the listing and this look at it.
        let Ok(path) = fs::read_link(entry.path()) else {
            continue;
        };
        let is_segment = path.extension().is_some_and(|extension| extension == "seg");
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let (true, Some(descriptor)) = (is_segment, number) else {
            continue;
        };
        let Ok(text) = fs::read_to_string(format!("/proc/{process_id}/fdinfo/{descriptor}")) else {
            continue;
        };
        let flags = text
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok())
            .ok_or_else(|| io::Error::other(format!("fdinfo without flags: {text}")))?;
        found.push(LogDescriptor {
            descriptor,
            path,
            flags,
        });
    }
    found.sort_by_key(|one| one.descriptor);
    Ok(found)
}
