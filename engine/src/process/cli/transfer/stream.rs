//! A pipe or a device, whose other end may be long in coming: what waits for it ends with its command.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::failure::Failure;
use super::super::interrupt::Interrupt;

/// How often a wait looks whether its command was told to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Opens a file for reading, and tells its length if it has one. If it is no regular file, what waits for it ends with
/// its command.
pub(in super::super) fn open_input(
    path: &Path,
    interrupt: &Arc<Interrupt>,
) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    let failed = |error| Failure::Failed(format!("cannot open {}: {error}", path.display()));
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_file() {
        let file = File::open(path).map_err(failed)?;
        return Ok((Box::new(file), Some(metadata.len())));
    }
    let stream = Stream::open(path, interrupt).map_err(failed)?;
    Ok((Box::new(stream), None))
}

/// What is no regular file, open in one direction. Its waits fail once the command is told to end.
#[derive(Debug)]
pub(super) struct Stream {
    file: File,
    interrupt: Arc<Interrupt>,
}

impl Stream {
    /// Opens it for reading, at once: that a pipe has no writer yet shows in the first read, which waits for one.
    fn open(path: &Path, interrupt: &Arc<Interrupt>) -> io::Result<Stream> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        Ok(Stream {
            file: options.open(path)?,
            interrupt: Arc::clone(interrupt),
        })
    }

    /// Opens it for writing. Waits until a pipe has a reader.
    pub(super) fn create(path: &Path, interrupt: &Arc<Interrupt>) -> io::Result<Stream> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        loop {
            match options.open(path) {
                // Of other files, such as sockets, this error is the last word.
                Err(error)
                    if error.raw_os_error() == Some(libc::ENXIO)
                        && fs::metadata(path)?.file_type().is_fifo()
                        && !interrupt.is_raised() =>
                {
                    std::thread::sleep(LOOK_EVERY);
                }
                opened => {
                    return Ok(Stream {
                        file: opened?,
                        interrupt: Arc::clone(interrupt),
                    });
                }
            }
        }
    }

    /// Waits until the other end has done something.
    fn wait(&self, events: libc::c_short) -> io::Result<()> {
        let mut wanted = libc::pollfd {
            fd: self.file.as_raw_fd(),
            events,
            revents: 0,
        };
        while !self.interrupt.is_raised() {
            // SAFETY: the pointer is to one such structure, which lives through the call.
            match unsafe { libc::poll(&raw mut wanted, 1, LOOK_EVERY.as_millis() as libc::c_int) } {
                0 => {}
                1.. => return Ok(()),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Err(io::Error::other("cancelled"))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(libc::POLLIN)?;
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait(libc::POLLOUT)?;
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;

    fn fifo(directory: &tempfile::TempDir) -> PathBuf {
        let path = directory.path().join("fifo");
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the name is a string with an end that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        path
    }

    #[test]
    fn all_bytes_pass_whoever_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(&directory);
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let received = std::thread::scope(|scope| {
            let writer = scope.spawn(|| Stream::create(&path, &Arc::default()).unwrap().write_all(&sent));
            let mut received = Vec::new();
            let mut reader = Stream::open(&path, &Arc::default()).unwrap();
            reader.read_to_end(&mut received).unwrap();
            writer.join().unwrap().unwrap();
            received
        });
        assert!(received == sent);
    }

    #[test]
    fn a_socket_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let refusal = Stream::create(&path, &Arc::default()).unwrap_err();
        assert_eq!(refusal.raw_os_error(), Some(libc::ENXIO));
    }

    #[test]
    fn a_wait_for_the_other_end_is_cancelled() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(&directory);
        let raised = || {
            let interrupt = Arc::new(Interrupt::default());
            interrupt.begin();
            interrupt.raise();
            interrupt
        };
        assert!(Stream::create(&path, &raised()).is_err(), "no reader");
        let mut reader = Stream::open(&path, &raised()).unwrap();
        assert!(reader.read(&mut [0]).is_err(), "no writer");
        let mut writer = Stream::create(&path, &raised()).unwrap();
        assert!(writer.write(b"x").is_err(), "cancelled before");
    }
}
