//! A disk whose errors and delays are chosen: an image file served by nbdkit through its filters `error` and
//! `delay`, made a file by nbdfuse, a loop device by `losetup --direct-io=on`, and mounted as ext4.
//!
//! [`FilteredDisk::fail_writes`] makes every write below the file system fail with EIO until
//! [`FilteredDisk::heal`]; reads go on. The delay of writes is fixed when the disk is made.
//!
//! Needs root, `/dev/fuse` and the tools below. Dropping a disk unmounts it, detaches its loop device, and
//! ends the processes that it started.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::tool;

/// How long nbdkit and nbdfuse may take to serve, an unmount to succeed, and nbdfuse to end. There are no
/// events to wait for.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
const STEP_INTERVAL: Duration = Duration::from_millis(10);

/// A mounted file system on a disk with faults.
#[derive(Debug)]
pub struct FilteredDisk {
    /// While it is there, writes fail.
    fault: PathBuf,
    /// The file that nbdfuse serves.
    served: PathBuf,
    mount_point: PathBuf,
    nbdfuse: Option<Child>,
    /// The loop device, while it is attached.
    device: Option<String>,
    is_mounted: bool,
}

impl FilteredDisk {
    /// Can such a disk be made here?
    ///
    /// # Errors
    /// What is missing, as a sentence.
    pub fn available() -> Result<(), String> {
        // SAFETY: the call has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return Err("a disk with faults needs root (it attaches a loop device and mounts it)".to_owned());
        }
        let tools = ["nbdkit", "nbdfuse", "losetup", "mount", "umount", "mkfs.ext4"];
        let missing: Vec<&str> = tools
            .into_iter()
            .filter(|name| tool::find(name).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "a disk with faults needs {} (packages nbdkit, libnbd-bin, mount, e2fsprogs)",
                missing.join(", ")
            ));
        }
        if !Path::new("/dev/fuse").exists() {
            return Err("a disk with faults needs /dev/fuse (the kernel's module fuse)".to_owned());
        }
        Ok(())
    }

    /// Makes a disk of `size_bytes` (sparse) in `directory`, each of whose writes takes `write_delay_ms`
    /// longer, and mounts it on `mount` there.
    ///
    /// # Errors
    /// A sentence, when a step fails; what was made until then is undone.
    pub fn create(directory: &Path, size_bytes: u64, write_delay_ms: u32) -> Result<FilteredDisk, String> {
        let mut disk = FilteredDisk {
            fault: directory.join("fault"),
            served: directory.join("served.img"),
            mount_point: directory.join("mount"),
            nbdfuse: None,
            device: None,
            is_mounted: false,
        };
        let image = directory.join("disk.img");
        let said = |path: &Path| {
            let path = path.to_owned();
            move |error: std::io::Error| format!("could not make {}: {error}", path.display())
        };
        fs::create_dir(&disk.mount_point).map_err(said(&disk.mount_point))?;
        let file = fs::File::create_new(&image).map_err(said(&image))?;
        file.set_len(size_bytes).map_err(said(&image))?;
        fs::File::create_new(&disk.served).map_err(said(&disk.served))?;
        disk.serve(&image, directory, write_delay_ms)?;
        let options = ["--find", "--show", "--direct-io=on"].map(OsStr::new);
        let device = tool::run("losetup", &[&options[..], &[disk.served.as_os_str()]].concat())?;
        disk.device = Some(device.clone());
        let options = ["-q", "-F"].map(OsStr::new);
        tool::run("mkfs.ext4", &[&options[..], &[OsStr::new(&device)]].concat())?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// From here on every write fails.
    ///
    /// # Errors
    /// When the file that says so can't be made.
    pub fn fail_writes(&self) -> Result<(), String> {
        let made = fs::write(&self.fault, b"");
        made.map_err(|error| format!("could not make {}: {error}", self.fault.display()))
    }

    /// Writes succeed again; the file system is mounted anew, by which it replays its journal. Nobody may
    /// have files open on it.
    ///
    /// # Errors
    /// When a step fails.
    pub fn heal(&mut self) -> Result<(), String> {
        let removed = fs::remove_file(&self.fault);
        removed.map_err(|error| format!("could not remove {}: {error}", self.fault.display()))?;
        self.unmount()?;
        self.mount()
    }

    /// Starts nbdfuse, which starts nbdkit, and waits until it serves.
    fn serve(&mut self, image: &Path, directory: &Path, write_delay_ms: u32) -> Result<(), String> {
        let ready = directory.join("nbdfuse.pid");
        let named = |name: &str, path: &Path| {
            let mut argument = OsString::from(name);
            argument.push(path);
            argument
        };
        let program = tool::find("nbdfuse").unwrap_or_else(|| "nbdfuse".into());
        let server = tool::find("nbdkit").unwrap_or_else(|| "nbdkit".into());
        let child = Command::new(program)
            .arg("--pidfile")
            .arg(&ready)
            .arg(&self.served)
            // What stands in brackets is run, and handed the socket.
            .arg("[")
            .arg(server)
            // What it says of each injected error is of no use: the node says it.
            .args(["--log=null", "--filter=error", "--filter=delay", "file"])
            .arg(named("file=", image))
            .args(["error-pwrite=EIO", "error-pwrite-rate=100%"])
            .arg(named("error-pwrite-file=", &self.fault))
            .arg(format!("delay-write={write_delay_ms}ms"))
            .arg("]")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("could not run nbdfuse: {error}"))?;
        let nbdfuse = self.nbdfuse.insert(child);
        let begun = Instant::now();
        while !ready.exists() {
            if let Ok(Some(status)) = nbdfuse.try_wait() {
                return Err(format!(
                    "nbdfuse with nbdkit ended before it served ({status}); is FUSE allowed here?"
                ));
            }
            if begun.elapsed() > STEP_TIMEOUT {
                return Err(format!(
                    "nbdfuse with nbdkit does not serve within {STEP_TIMEOUT:?}"
                ));
            }
            std::thread::sleep(STEP_INTERVAL);
        }
        Ok(())
    }

    fn mount(&mut self) -> Result<(), String> {
        let device = self.device.as_deref().ok_or("no loop device is attached")?;
        tool::run("mount", &[OsStr::new(device), self.mount_point.as_os_str()])?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        if self.is_mounted {
            unmount(&self.mount_point)?;
            self.is_mounted = false;
        }
        Ok(())
    }

    /// Unmounts the served file, by which nbdfuse and nbdkit end.
    fn stop_serving(&mut self) -> Result<(), String> {
        let Some(mut nbdfuse) = self.nbdfuse.take() else {
            return Ok(());
        };
        let unmounted = match nbdfuse.try_wait() {
            Ok(Some(_)) => return Ok(()),
            _ => unmount(&self.served),
        };
        let begun = Instant::now();
        while unmounted.is_ok() && begun.elapsed() < STEP_TIMEOUT {
            if let Ok(Some(_)) = nbdfuse.try_wait() {
                return Ok(());
            }
            std::thread::sleep(STEP_INTERVAL);
        }
        // Both fail if it has ended, which is what is wanted.
        let _ended = nbdfuse.kill().and_then(|()| nbdfuse.wait());
        unmounted
    }
}

/// The kernel ends the IO of a killed process in the background, and only then lets go of its files.
fn unmount(path: &Path) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match tool::run("umount", &[path.as_os_str()]) {
            Err(sentence) if sentence.contains("busy") && begun.elapsed() < STEP_TIMEOUT => {
                std::thread::sleep(STEP_INTERVAL);
            }
            ended => return ended.map(drop),
        }
    }
}

impl Drop for FilteredDisk {
    fn drop(&mut self) {
        // It is there only while writes fail.
        let _absent = fs::remove_file(&self.fault);
        if let Err(sentence) = self.unmount() {
            eprintln!("{sentence}; it stays mounted on {}", self.mount_point.display());
            return;
        }
        if let Some(device) = self.device.take()
            && let Err(sentence) = tool::run("losetup", &[OsStr::new("--detach"), OsStr::new(&device)])
        {
            eprintln!("{sentence}; {device} stays attached");
        }
        if let Err(sentence) = self.stop_serving() {
            eprintln!("{sentence}; {} stays served", self.served.display());
        }
    }
}
