//! Hands operations to connections that have none in flight, where answers alone do not drive the load.
//!
//! 1. In an open loop it sleeps until the next operation is due, and hands over all that are due, to one
//!    connection after the other.
//! 2. While operations are due and all pipelines are full, connections take them as answers come. The
//!    dispatcher waits until one of them finds nothing due any more.
//! 3. If connections are in groups, it is also called when a connection had to wait and an operation was taken
//!    since: that can be what the waiting one needs.
//! 4. When no operation will come any more, it ends the connections that wait for one.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use glommio::timer::Timer;

use super::connection::Connection;
use super::thread::Thread;

/// Longest sleep: another executor may have stopped the phase.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// See the head of the module. Returns when no operation will come any more.
pub(crate) async fn run(connections: Vec<Rc<RefCell<Connection>>>, thread: Rc<RefCell<Thread>>) {
    let mut first = 0;
    loop {
        let now = Instant::now();
        hand_over(&connections, &thread, now, &mut first);
        let pause = {
            let mut thread = thread.borrow_mut();
            if thread.shared.is_stopped() {
                thread.source.stop();
            }
            if thread.source.is_over() {
                break;
            }
            let next_due_at = thread.source.next_due_at();
            thread.is_saturated = next_due_at.is_some_and(|due_at| due_at <= now);
            match next_due_at {
                Some(due_at) if due_at > now => SLEEP_MAX.min(due_at - now),
                _ => SLEEP_MAX,
            }
        };
        sleep_or_be_called(&thread, pause).await;
        thread.borrow_mut().is_saturated = false;
    }
    for connection in &connections {
        connection.borrow_mut().finish_if_idle();
    }
}

/// Gives each connection one operation in turn, until nobody has room or nothing is due.
fn hand_over(
    connections: &[Rc<RefCell<Connection>>],
    thread: &Rc<RefCell<Thread>>,
    now: Instant,
    first: &mut usize,
) {
    let thread = &mut *thread.borrow_mut();
    thread.is_hungry = false;
    let mut without_success = 0;
    while without_success < connections.len() {
        let mut connection = connections[*first % connections.len()].borrow_mut();
        *first = (*first + 1) % connections.len();
        match connection.hand_over_one(thread, now) {
            Ok(true) => {
                without_success = 0;
                connection.wake_writer();
            }
            Ok(false) if thread.is_hungry && !thread.source.is_grouped() => return,
            Ok(false) => without_success += 1,
            Err(end) => connection.shut_down(end),
        }
    }
}

/// Until the time has passed, or [`Thread::call_dispatcher`].
async fn sleep_or_be_called(thread: &Rc<RefCell<Thread>>, pause: Duration) {
    let mut timer = Timer::new(pause);
    let mut is_waiting = false;
    poll_fn(move |context| {
        let mut thread = thread.borrow_mut();
        let is_called = is_waiting && thread.dispatcher.is_none();
        if is_called || Pin::new(&mut timer).poll(context).is_ready() {
            thread.dispatcher = None;
            return Poll::Ready(());
        }
        thread.dispatcher = Some(context.waker().clone());
        is_waiting = true;
        Poll::Pending
    })
    .await;
}
