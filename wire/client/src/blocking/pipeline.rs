//! Many requests on their way at once.

use std::marker::PhantomData;

use ostrakon_wire::message::{Condition, Request};

use super::driver::Driver;
use crate::error::Error;
use crate::session::CallId;
use crate::values::Answer;

/// Sends many requests before waiting for the first answer. The server may work on them at the same time and
/// in any order: a request must not rely on one before it whose answer hasn't been waited for.
///
/// Requests go out when enough are together, at a [`flush`](Self::flush), or when an answer is waited for. If too many
/// are unanswered, submitting first waits for answers and keeps them. What was submitted and not waited for when the
/// pipeline ends may or may not happen.
#[derive(Debug)]
pub struct Pipeline<'client> {
    driver: &'client mut Driver,
}

/// A claim to one answer, for [`Pipeline::wait`].
#[must_use = "without waiting for it nobody knows what became of the request"]
#[derive(Debug)]
pub struct Ticket<'client> {
    call: CallId,
    driver_number: u64,
    /// Ends the ticket with its pipeline.
    client: PhantomData<fn(&'client ()) -> &'client ()>,
}

impl<'client> Pipeline<'client> {
    pub(super) fn new(driver: &'client mut Driver) -> Pipeline<'client> {
        Pipeline { driver }
    }

    /// Submits any request.
    ///
    /// # Errors
    /// [`Error::Submit`] if it breaks a limit, [`Error::Interrupted`] if the wait for room was ended.
    pub fn submit(&mut self, request: &Request<'_>) -> Result<Ticket<'client>, Error> {
        let call = self.driver.start(request)?;
        Ok(Ticket {
            call,
            driver_number: self.driver.number(),
            client: PhantomData,
        })
    }

    /// Submits a get.
    ///
    /// # Errors
    /// As for [`Pipeline::submit`].
    pub fn get(&mut self, key: &[u8]) -> Result<Ticket<'client>, Error> {
        self.submit(&Request::Get { key })
    }

    /// Submits a put.
    ///
    /// # Errors
    /// As for [`Pipeline::submit`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<Ticket<'client>, Error> {
        self.submit(&Request::put(key, value, Condition::None))
    }

    /// Submits a delete.
    ///
    /// # Errors
    /// As for [`Pipeline::submit`].
    pub fn delete(&mut self, key: &[u8]) -> Result<Ticket<'client>, Error> {
        self.submit(&Request::delete(key, Condition::None))
    }

    /// Sends what was submitted, and waits until the sockets have taken it, at most for the time-outs of the requests.
    /// Half a request that was sent must not wait for its other half: the server ends a connection for that.
    pub fn flush(&mut self) {
        self.driver.flush();
    }

    /// Waits for the answer to one request, at most until the request timeout after its submission. Tickets may be
    /// waited for in any order.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Panics
    /// If the ticket is of another client's pipeline.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is good for one answer")]
    pub fn wait(&mut self, ticket: Ticket<'client>) -> Result<Answer, Error> {
        assert!(
            ticket.driver_number == self.driver.number(),
            "this ticket is of another client"
        );
        self.driver.finish(ticket.call)
    }
}

impl Drop for Pipeline<'_> {
    fn drop(&mut self) {
        self.driver.abandon_all();
    }
}
