//! Metrics and health over HTTP, on a thread of its own.
//!
//! It never runs on a core and never waits for one: what it tells it asks the cores for, through the channel of the
//! operator's commands, and gives up after a second. Requests are bounded in every way: a connection carries one
//! request and lives some seconds, and there are few of them. Nothing here is encrypted or asks who is there, so the
//! configuration allows loopback only, unless its user insists.
//!
//! Reading order: `pages` (what is answered), `reports` (how cores are asked), `metrics`, `exposition` (their format),
//! `process` (what the system says of the process).

mod exposition;
mod families;
mod metrics;
mod pages;
mod process;
mod reports;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};

use self::reports::Reports;
use crate::env::foreign::ForeignSender;
use crate::server::node::OperatorCommand;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32;
/// From accept to the last byte of the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// From accept to the whole head of the request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request's head; hyper allows no less.
const HEAD_BYTES_MAX: usize = 8192;
/// Header fields of a request.
const HEADERS_MAX: usize = 64;
/// Pause after a failed accept, which is for lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no HTTP.
#[derive(Debug)]
#[non_exhaustive]
pub enum HttpError {
    /// The address can't be listened on.
    Listen(SocketAddr, io::Error),
    /// The thread can't be started.
    Thread(io::Error),
}

impl fmt::Display for HttpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Listen(address, error) => write!(
                formatter,
                "can't listen on {address} for metrics and health: {error}; is another node running there? choose \
                 another address with --http, or turn it off with --http off"
            ),
            HttpError::Thread(error) => write!(formatter, "can't start the thread for HTTP: {error}"),
        }
    }
}

impl std::error::Error for HttpError {}

/// The running thread; dropping it ends it.
pub struct HttpServer {
    address: SocketAddr,
    reports: Arc<Reports>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Listens, and answers for a node that is starting.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub fn start(address: SocketAddr) -> Result<HttpServer, HttpError> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = listen().map_err(|error| HttpError::Listen(address, error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(HttpError::Thread)?;
        let reports = Arc::new(Reports::default());
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&reports);
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || runtime.block_on(serve(listener, shared, stopped)))
            .map_err(HttpError::Thread)?;
        Ok(HttpServer {
            address,
            reports,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node serves now, and hears commands here.
    pub fn node_serves(&self, commands: ForeignSender<OperatorCommand>) {
        self.reports.node_serves(commands);
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // The thread hears the end of the channel.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can only fail by a panic, which has been printed already.
            let _ = thread.join();
        }
    }
}

/// Accepts until the other end of `stopped` is dropped.
async fn serve(listener: TcpListener, reports: Arc<Reports>, mut stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("metrics and health can't be told over HTTP: {error}");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        // Accepting may be dropped half-way: a place is given back, a connection stays in the kernel's queue.
        let accepted = tokio::select! {
            _ = &mut stopped => return,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let reports = Arc::clone(&reports);
                tokio::spawn(async move {
                    // A client that went away or was too slow is no news.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, answer_one(stream, reports)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("a connection for HTTP was not accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer_one(stream: TcpStream, reports: Arc<Reports>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let reports = Arc::clone(&reports);
        async move { Ok::<_, Infallible>(pages::answer(&request, &reports).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
