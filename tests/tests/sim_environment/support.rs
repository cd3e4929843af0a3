//! What the tests of the simulated environment share: processes to run, files to write, bytes to send.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::rc::Rc;

use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::env::{Connection, DiskBuf, Env, Listener, OpenMode, Priority};
use ostrakon_tests::sim::{HostId, ProcessId, ProcessStatus, RunEnd, World};

pub(crate) const BLOCK: u64 = BLOCK_BYTES as u64;

pub(crate) const SECOND_NS: u64 = 1_000_000_000;

pub(crate) fn path() -> &'static Path {
    Path::new("/data/file")
}

pub(crate) fn data() -> &'static Path {
    Path::new("/data")
}

pub(crate) fn start<B: 'static, F: Future<Output = ()> + 'static>(
    world: &World,
    host: HostId,
    cores: u16,
    main: impl Fn(Env<B>) -> F,
) -> ProcessId {
    world.start_process(host, cores, |_, env| Box::pin(main(env)))
}

/// Runs a process to its end, which must be a good one.
pub(crate) fn run<B: 'static, F: Future<Output = ()> + 'static>(
    world: &World,
    host: HostId,
    cores: u16,
    main: impl Fn(Env<B>) -> F,
) {
    let process = start(world, host, cores, main);
    let deadline_ns = world.now_ns() + 1000 * SECOND_NS;
    let end = world.run_until(deadline_ns, |world| {
        world.process_status(process) != ProcessStatus::Running
    });
    assert_eq!(end, RunEnd::Met, "{:?}", world.panics());
    assert_eq!(
        world.process_status(process),
        ProcessStatus::Exited,
        "{:?}",
        world.panics()
    );
}

/// Runs a process on the only core of the only host of a new world.
pub(crate) fn run_alone<F: Future<Output = ()> + 'static>(
    seed: u64,
    main: impl Fn(Env<()>) -> F,
) -> (World, HostId) {
    let world = World::new(seed);
    let host = world.add_host("alone");
    run(&world, host, 1, main);
    (world, host)
}

pub(crate) fn filled(env: &Env<()>, byte: u8, blocks: usize) -> Rc<DiskBuf> {
    let mut buffer = env.disk.allocate(blocks * BLOCK_BYTES);
    buffer.bytes_mut().fill(byte);
    Rc::new(buffer)
}

/// A file of zeros that is durable with its name.
pub(crate) async fn make_file(env: &Env<()>, path: &Path, blocks: usize) {
    let file = env.disk.open(path, OpenMode::CreateNew).await.unwrap();
    file.write_at(Rc::new(env.disk.allocate(blocks * BLOCK_BYTES)), 0)
        .await
        .unwrap();
    file.sync().await.unwrap();
    file.close().await.unwrap();
    env.disk.sync_dir(path.parent().unwrap()).await.unwrap();
}

pub(crate) async fn write_durable(env: &Env<()>, path: &Path, byte: u8, block: u64) -> io::Result<()> {
    let file = env.disk.open(path, OpenMode::WriteDurable).await?;
    let written = file.write_at(filled(env, byte, 1), block * BLOCK).await;
    file.close().await?;
    written
}

pub(crate) async fn receive(connection: &dyn Connection) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    poll_fn(|cx| connection.poll_recv(cx, &mut |lent| bytes.extend_from_slice(lent))).await?;
    Ok(bytes)
}

pub(crate) async fn receive_exactly(connection: &dyn Connection, count: usize) -> Vec<u8> {
    let mut whole = Vec::new();
    while whole.len() < count {
        let bytes = receive(connection).await.unwrap();
        assert!(
            !bytes.is_empty(),
            "the stream ended after {} of {count} bytes",
            whole.len()
        );
        whole.extend(bytes);
    }
    whole
}

pub(crate) async fn send(connection: &dyn Connection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = poll_fn(|cx| connection.poll_send(cx, bytes)).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

pub(crate) async fn accept(listener: &dyn Listener) -> Rc<dyn Connection> {
    poll_fn(|cx| listener.poll_accept(cx)).await.unwrap()
}

pub(crate) async fn echo(connection: Rc<dyn Connection>) {
    while let Ok(bytes) = receive(&*connection).await {
        if bytes.is_empty() || send(&*connection, &bytes).await.is_err() {
            return;
        }
    }
}

pub(crate) fn address(world: &World, host: HostId) -> std::net::SocketAddr {
    (world.address(host), 5750).into()
}

/// A process that echoes on all its cores for ever.
pub(crate) fn start_echo(world: &World, host: HostId, cores: u16) -> ProcessId {
    let listen = address(world, host);
    start(world, host, cores, move |env: Env<()>| async move {
        let listener = env.network.listen(listen).unwrap();
        loop {
            let connection = accept(&*listener).await;
            env.tasks.spawn(Priority::Foreground, Box::pin(echo(connection)));
        }
    })
}

/// A client that sends one byte each 10 ms and receives it back, until the connection breaks; then the next.
pub(crate) fn start_pings(world: &World, client: HostId, server: HostId) -> (Rc<Cell<u64>>, Rc<Cell<u64>>) {
    let (pongs, breaks) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (tester, ponged, broken) = (world.clone(), Rc::clone(&pongs), Rc::clone(&breaks));
    let to = address(world, server);
    world.spawn(client, async move {
        loop {
            tester.sleep_until(tester.now_ns() + 10_000_000).await;
            let Ok(connection) = tester.connect(client, to).await else {
                continue;
            };
            while send(&*connection, b"p").await.is_ok()
                && receive(&*connection).await.is_ok_and(|bytes| !bytes.is_empty())
            {
                ponged.set(ponged.get() + 1);
                tester.sleep_until(tester.now_ns() + 10_000_000).await;
            }
            broken.set(broken.get() + 1);
        }
    });
    (pongs, breaks)
}
