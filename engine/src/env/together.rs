//! Waiting for several futures at once.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;

/// Runs these futures side by side to their ends.
///
/// # Errors
/// The error of the first of them, in order, that has one; the others have ended too.
pub async fn all<E>(futures: impl IntoIterator<Item = impl Future<Output = Result<(), E>>>) -> Result<(), E> {
    let mut running: Vec<Option<Pin<Box<_>>>> =
        futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut outcomes: Vec<Result<(), E>> = running.iter().map(|_| Ok(())).collect();
    poll_fn(|cx| {
        let mut is_ready = true;
        for (slot, outcome) in running.iter_mut().zip(&mut outcomes) {
            let Some(future) = slot else { continue };
            match future.as_mut().poll(cx) {
                Poll::Ready(ended) => {
                    *outcome = ended;
                    *slot = None;
                }
                Poll::Pending => is_ready = false,
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outcomes.into_iter().collect()
}
