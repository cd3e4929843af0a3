//! Harness for tests on the real environment: data directories, cores with a watchdog, sockets, descriptors.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::cell::Cell;
use std::fs;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::env::glommio::{JoinError, RuntimeConfig, start};
use ostrakon::env::{Connection, DiskBuf, Env, Listener};
use tempfile::TempDir;

/// No test runs for longer; a core that hangs fails its test.
pub(crate) const WATCHDOG: Duration = Duration::from_mins(1);

/// The address to listen on in tests: the system chooses the port.
pub(crate) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A directory on the file system of the build directory, where direct IO works (`/tmp` may be tmpfs).
pub(crate) fn data_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable")
}

/// Runs `main` on `cores` cores and returns how they ended.
pub(crate) fn try_run<B, F, Fut>(config: RuntimeConfig, main: F) -> Result<(), JoinError>
where
    B: Send + 'static,
    F: Fn(Env<B>) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let cores = start(config, main).unwrap_or_else(|error| panic!("{error}"));
        ended.send(cores.join())
    });
    end.recv_timeout(WATCHDOG)
        .expect("the cores start and end in time")
}

/// Runs `main` on `cores` cores in a data directory of its own. A panic on a core fails the test.
pub(crate) fn run<B, F, Fut>(cores: u16, main: F)
where
    B: Send + 'static,
    F: Fn(Env<B>) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let directory = data_dir();
    if let Err(error) = try_run(RuntimeConfig::new(cores, directory.path()), main) {
        panic!("{error}");
    }
}

/// Runs `main` on one core, with a directory for its files.
pub(crate) fn run_with_files<F, Fut>(main: F)
where
    F: Fn(Env<()>, PathBuf) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let directory = data_dir();
    let path = directory.path().to_owned();
    let main = move |env| main(env, path.clone());
    if let Err(error) = try_run(RuntimeConfig::new(1, directory.path()), main) {
        panic!("{error}");
    }
}

/// Waits until `condition` holds, and fails the test if it doesn't within ten seconds.
pub(crate) async fn until<B>(env: &Env<B>, what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "waited in vain until {what}"
        );
        env.tasks.sleep(Duration::from_millis(1)).await;
    }
}

/// A buffer of blocks, each filled with its number plus `first`.
pub(crate) fn numbered_blocks<B>(env: &Env<B>, first: u8, blocks: usize) -> Rc<DiskBuf> {
    let mut buffer = env.disk.allocate(blocks * BLOCK_BYTES);
    for (number, block) in buffer.bytes_mut().chunks_mut(BLOCK_BYTES).enumerate() {
        block.fill(first.wrapping_add(number as u8));
    }
    Rc::new(buffer)
}

/// The next connection.
pub(crate) async fn accept(listener: &dyn Listener) -> io::Result<Rc<dyn Connection>> {
    poll_fn(|cx| listener.poll_accept(cx)).await
}

/// What one receive lends; empty at the end of the stream.
pub(crate) async fn receive(connection: &dyn Connection) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    poll_fn(|cx| connection.poll_recv(cx, &mut |bytes| received.extend_from_slice(bytes))).await?;
    Ok(received)
}

/// Sends all of `bytes`.
pub(crate) async fn send(connection: &dyn Connection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent_bytes = poll_fn(|cx| connection.poll_send(cx, bytes)).await?;
        assert!(sent_bytes > 0, "a send that sent nothing");
        bytes = &bytes[sent_bytes..];
    }
    Ok(())
}

/// Echoes until the peer closes.
pub(crate) async fn echo(connection: Rc<dyn Connection>) {
    loop {
        let bytes = receive(&*connection).await.expect("the client stays connected");
        if bytes.is_empty() {
            return;
        }
        send(&*connection, &bytes).await.expect("the client reads");
    }
}

/// A client's blocking stream that gives up after the watchdog's time.
pub(crate) fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the listener accepts");
    stream
        .set_read_timeout(Some(WATCHDOG))
        .expect("the timeout is positive");
    stream
}

/// Sends `request` and reads as many bytes back.
pub(crate) fn round_trip(stream: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).expect("the server reads");
    let mut answer = vec![0; request.len()];
    stream.read_exact(&mut answer).expect("the server answers");
    answer
}

/// True if the server has closed or reset the connection.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Descriptors that this process has open.
pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("proc is mounted").count()
}

/// The flags of this process's descriptor of `path`, from `/proc/self/fdinfo`.
pub(crate) fn open_flags(path: &Path) -> i32 {
    for entry in fs::read_dir("/proc/self/fd").expect("proc is mounted") {
        let entry = entry.expect("proc is readable");
        if fs::read_link(entry.path()).is_ok_and(|target| target == path) {
            let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
            let info = fs::read_to_string(info).expect("the descriptor is open");
            let flags = info
                .lines()
                .find_map(|line| line.strip_prefix("flags:"))
                .expect("it has flags");
            return i32::from_str_radix(flags.trim(), 8).expect("flags are octal");
        }
    }
    panic!("{} isn't open", path.display())
}

/// Runs a blocking call on a thread of its own while the core goes on.
pub(crate) async fn on_a_thread<B, T: Send + 'static>(
    env: &Env<B>,
    call: impl FnOnce() -> T + Send + 'static,
) -> T {
    let thread = thread::spawn(call);
    while !thread.is_finished() {
        env.tasks.sleep(Duration::from_millis(1)).await;
    }
    match thread.join() {
        Ok(value) => value,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Waits until the core has parked and been woken, so that all that was begun before is with the kernel.
pub(crate) async fn park_once<B>(env: &Env<B>) {
    on_a_thread(env, || ()).await;
}

/// Counts in `waits` how often a future's poll was not ready.
pub(crate) async fn counting_waits<T>(waits: Rc<Cell<u32>>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let poll = future.as_mut().poll(cx);
        if poll.is_pending() {
            waits.set(waits.get() + 1);
        }
        poll
    })
    .await
}

/// Polls once without waiting; true if it was ready.
pub(crate) async fn poll_once<T>(mut poll: impl FnMut(&mut std::task::Context<'_>) -> Poll<T>) -> Option<T> {
    poll_fn(|cx| match poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
