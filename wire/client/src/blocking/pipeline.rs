//! Many requests on their way at once over one blocking connection.

use std::marker::PhantomData;

use ostrakon_wire::message::{Condition, Request};

use super::connection::Connection;
use crate::error::Error;
use crate::protocol::RequestId;
use crate::values::Answer;

/// Sends many requests before waiting for the first answer. The server may work on them at the same time and
/// in any order: a request must not rely on one before it whose answer hasn't been waited for.
///
/// Requests go out when enough are together or when an answer is waited for. If as many are unanswered as the
/// server allows, submitting first waits for answers and keeps them. What was submitted and not waited for
/// when the pipeline ends may or may not happen.
#[derive(Debug)]
pub struct Pipeline<'client> {
    connection: &'client mut Connection,
}

/// A claim to one answer, for [`Pipeline::wait`].
#[must_use = "without waiting for it nobody knows what became of the request"]
#[derive(Debug)]
pub struct Ticket<'client> {
    id: RequestId,
    connection_number: u64,
    /// Ends the ticket with its pipeline.
    client: PhantomData<fn(&'client ()) -> &'client ()>,
}

impl<'client> Pipeline<'client> {
    pub(super) fn new(connection: &'client mut Connection) -> Pipeline<'client> {
        Pipeline { connection }
    }

    /// Submits any request.
    ///
    /// # Errors
    /// [`Error::Submit`] if it breaks a limit; else the reason for which the connection failed
    /// before it was sent.
    pub fn submit(&mut self, request: &Request<'_>) -> Result<Ticket<'client>, Error> {
        let id = self.connection.start(request)?;
        Ok(Ticket {
            id,
            connection_number: self.connection.number(),
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

    /// Waits for the answer to one request, up to the request timeout. Tickets may be waited for in any
    /// order.
    ///
    /// # Errors
    /// See [`Error`]. A failure of the connection is reported once for each ticket, as
    /// [`Error::UnknownOutcome`] for writes.
    ///
    /// # Panics
    /// If the ticket is of another client's pipeline.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is good for one answer")]
    pub fn wait(&mut self, ticket: Ticket<'client>) -> Result<Answer, Error> {
        assert!(
            ticket.connection_number == self.connection.number(),
            "this ticket is of another client"
        );
        self.connection.finish(ticket.id)
    }
}

impl Drop for Pipeline<'_> {
    fn drop(&mut self) {
        self.connection.abandon_all();
    }
}
