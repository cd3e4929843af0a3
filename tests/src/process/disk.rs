//! A disk that can lose its power: an image file on a loop device with a file system that is shut down in mid-flight.
//!
//! [`PowerDisk::cut`] makes the file system refuse all IO from one moment on and drops what its journal and page
//! cache have not written (`xfs_io -x -c shutdown`, without `-f`: no flush). [`PowerDisk::restore`] unmounts and
//! mounts again, by which the journal is replayed as after a real loss of power. What reached the loop device
//! stays: a volatile write cache below it is not part of this.
//!
//! Needs root and the tools below. Dropping a disk unmounts it, detaches its loop device and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tool;

/// How long to go on with an unmount that is told `busy`: the kernel ends the IO of a killed process in the
/// background, and only then lets go of its files. There is no event to wait for.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(30);
const UNMOUNT_INTERVAL: Duration = Duration::from_millis(20);

/// A file system to test on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    fn make_tool(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "mkfs.ext4",
            FileSystem::Xfs => "mkfs.xfs",
        }
    }
}

/// A mounted file system on a loop device.
#[derive(Debug)]
pub struct PowerDisk {
    image: PathBuf,
    mount_point: PathBuf,
    /// The loop device, while it is attached.
    device: Option<String>,
    is_mounted: bool,
}

impl PowerDisk {
    /// Can a disk be made here?
    ///
    /// # Errors
    /// What is missing, as a sentence.
    pub fn available(file_system: FileSystem) -> Result<(), String> {
        // SAFETY: the call has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return Err("power loss needs root (it attaches a loop device and mounts it)".to_owned());
        }
        let tools = ["losetup", "mount", "umount", "xfs_io", file_system.make_tool()];
        let missing: Vec<&str> = tools
            .into_iter()
            .filter(|name| tool::find(name).is_none())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "power loss needs {} (packages mount, e2fsprogs, xfsprogs)",
            missing.join(", ")
        ))
    }

    /// Makes `disk.img` of `size_bytes` (sparse) in `directory` and mounts it on `mount` there.
    ///
    /// # Errors
    /// A sentence, when a step fails; what was made until then is undone.
    pub fn create(directory: &Path, size_bytes: u64, file_system: FileSystem) -> Result<PowerDisk, String> {
        let mut disk = PowerDisk {
            image: directory.join("disk.img"),
            mount_point: directory.join("mount"),
            device: None,
            is_mounted: false,
        };
        let said = |path: &Path| {
            let path = path.to_owned();
            move |error: std::io::Error| format!("could not make {}: {error}", path.display())
        };
        fs::create_dir(&disk.mount_point).map_err(said(&disk.mount_point))?;
        let file = fs::File::create_new(&disk.image).map_err(said(&disk.image))?;
        file.set_len(size_bytes).map_err(said(&disk.image))?;
        drop(file);
        let options = ["--find", "--show", "--direct-io=on"].map(OsStr::new);
        let device = tool::run("losetup", &[&options[..], &[disk.image.as_os_str()]].concat())?;
        disk.device = Some(device.clone());
        let device = OsStr::new(&device);
        match file_system {
            FileSystem::Ext4 => tool::run("mkfs.ext4", &[OsStr::new("-q"), OsStr::new("-F"), device])?,
            FileSystem::Xfs => tool::run("mkfs.xfs", &[OsStr::new("-q"), OsStr::new("-f"), device])?,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The image file.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// The power fails: from here on all IO fails, and what was not flushed is lost.
    ///
    /// # Errors
    /// When the file system can't be shut down.
    pub fn cut(&self) -> Result<(), String> {
        let arguments = ["-x", "-c", "shutdown"].map(OsStr::new);
        tool::run(
            "xfs_io",
            &[&arguments[..], &[self.mount_point.as_os_str()]].concat(),
        )
        .map(drop)
    }

    /// The power is back. Nobody may have files open on it.
    ///
    /// # Errors
    /// When it can't be unmounted or mounted.
    pub fn restore(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<(), String> {
        let device = self.device.as_deref().ok_or("no loop device is attached")?;
        tool::run("mount", &[OsStr::new(device), self.mount_point.as_os_str()])?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while self.is_mounted {
            match tool::run("umount", &[self.mount_point.as_os_str()]) {
                Ok(_) => self.is_mounted = false,
                Err(sentence) if sentence.contains("busy") && begun.elapsed() < UNMOUNT_TIMEOUT => {
                    std::thread::sleep(UNMOUNT_INTERVAL);
                }
                Err(sentence) => return Err(sentence),
            }
        }
        Ok(())
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        if let Err(sentence) = self.unmount() {
            eprintln!("{sentence}; it stays mounted on {}", self.mount_point.display());
            return;
        }
        if let Some(device) = self.device.take()
            && let Err(sentence) = tool::run("losetup", &[OsStr::new("--detach"), OsStr::new(&device)])
        {
            eprintln!("{sentence}; {device} stays attached");
        }
        // It stays behind if something was put into it while nothing was mounted.
        let _kept = fs::remove_dir(&self.mount_point);
    }
}
