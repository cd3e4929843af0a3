//! A small disk that can lose its power: an ext4 file system in a file, on a loop device.
//!
//! [`PowerDisk::cut`] shuts the file system down without a flush: from then on all IO fails, and what neither journal
//! nor direct IO has brought to the device is gone. [`PowerDisk::restore`] mounts it again, by which the journal is
//! replayed. The loop device writes past the page cache. A write cache that the device itself may have is not part of
//! this.
//!
//! Needs root and tools that [`PowerDisk::available`] looks for. Dropping it unmounts and detaches; the file lies in
//! the benchmark's workspace and goes with it.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process;
use crate::workspace::Workspace;

/// The kernel ends the IO of a killed process in the background, and is busy with its files until then.
const UNMOUNT_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Where tools of the system lie that are not in every user's `PATH`.
const SYSTEM_DIRECTORIES: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// A mounted file system.
#[derive(Debug)]
pub struct PowerDisk {
    mount_point: PathBuf,
    /// While it is attached.
    device: Option<String>,
    is_mounted: bool,
}

impl PowerDisk {
    /// Can there be one?
    ///
    /// # Errors
    /// A sentence about what is missing.
    pub fn available() -> Result<(), String> {
        // SAFETY: the call has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return Err("power cuts need root, for a loop device and a mount".to_owned());
        }
        let tools = [
            ("losetup", "--version"),
            ("mount", "--version"),
            ("umount", "--version"),
            ("mkfs.ext4", "-V"),
            ("xfs_io", "-V"),
        ];
        for (name, version) in tools {
            run(name, &[OsStr::new(version)]).map_err(|error| {
                format!("power cuts need {name} (packages mount, e2fsprogs, xfsprogs): {error}")
            })?;
        }
        Ok(())
    }

    /// Makes one of `bytes`, of which only those in use take space, in the workspace.
    ///
    /// # Errors
    /// A sentence, if a step fails; what was done until then is undone.
    pub fn new(workspace: &Workspace, bytes: u64) -> Result<Self, String> {
        let image = workspace.join("disk.img");
        let mut disk = Self {
            mount_point: workspace.join("disk"),
            device: None,
            is_mounted: false,
        };
        let failed =
            |error: std::io::Error| format!("cannot make a disk in {}: {error}", workspace.path().display());
        std::fs::create_dir(&disk.mount_point).map_err(failed)?;
        let file = File::create_new(&image).map_err(failed)?;
        file.set_len(bytes).map_err(failed)?;
        let attach = ["--find", "--show", "--direct-io=on"].map(OsStr::new);
        let device = run("losetup", &[&attach[..], &[image.as_os_str()]].concat())?;
        let device = disk.device.insert(device.trim().to_owned());
        run("mkfs.ext4", &["-q", "-F", device.as_str()].map(OsStr::new))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The power fails.
    ///
    /// # Errors
    /// A sentence, if the file system can't be shut down.
    pub fn cut(&self) -> Result<(), String> {
        let shut_down = ["-x", "-c", "shutdown"].map(OsStr::new);
        run(
            "xfs_io",
            &[&shut_down[..], &[self.mount_point.as_os_str()]].concat(),
        )
        .map(drop)
    }

    /// The power is back. Nobody may have files open.
    ///
    /// # Errors
    /// A sentence, if it can't be unmounted or mounted.
    pub fn restore(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<(), String> {
        let device = self.device.as_deref().ok_or("no loop device is attached")?;
        run("mount", &[OsStr::new(device), self.mount_point.as_os_str()])?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while self.is_mounted {
            match run("umount", &[self.mount_point.as_os_str()]) {
                Ok(_) => self.is_mounted = false,
                Err(error) if error.contains("busy") && begun.elapsed() < UNMOUNT_WITHIN => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            let mount_point = self.mount_point.display();
            return eprintln!("ostrakon-bench: {error}; it stays mounted on {mount_point}");
        }
        let Some(device) = self.device.take() else {
            return;
        };
        if let Err(error) = run("losetup", &["--detach", device.as_str()].map(OsStr::new)) {
            eprintln!("ostrakon-bench: {error}; {device} stays attached");
        }
    }
}

fn run(name: &str, arguments: &[&OsStr]) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    process::output_of(
        Command::new(name)
            .args(arguments)
            .env("PATH", format!("{path}:{SYSTEM_DIRECTORIES}")),
    )
}
