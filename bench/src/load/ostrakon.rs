//! Ostrakon's protocol for the load: the client library's own state machine.

use ostrakon_client::{Condition, Options, Protocol, Request, Response};

use super::conversation::{Answered, Conversation, Operation};

/// One connection to Ostrakon.
pub(super) struct OstrakonConversation {
    protocol: Protocol,
}

impl Conversation for OstrakonConversation {
    fn new(_pipeline: usize) -> Result<Self, String> {
        let options = Options {
            client: "ostrakon-bench".to_owned(),
            ..Options::default()
        };
        let protocol = Protocol::new(&options).map_err(|error| error.to_string())?;
        Ok(Self { protocol })
    }

    fn is_ready(&self) -> bool {
        self.protocol.server().is_some()
    }

    fn submit(&mut self, operation: Operation, key: &[u8], value: &[u8]) -> Result<usize, String> {
        let request = match operation {
            Operation::Put => Request::put(key, value, Condition::None),
            Operation::Get => Request::Get { key },
        };
        let id = self
            .protocol
            .submit(&request)
            .map_err(|error| error.to_string())?;
        Ok(id.slot())
    }

    fn bytes_to_send(&self) -> &[u8] {
        self.protocol.bytes_to_send()
    }

    fn sent(&mut self, count: usize) {
        self.protocol.sent(count);
    }

    fn receive_room(&mut self) -> &mut [u8] {
        self.protocol.receive_room()
    }

    fn received(&mut self, count: usize) {
        self.protocol.received(count);
    }

    fn next_answer(&mut self) -> Result<Option<(usize, Answered)>, String> {
        let Some((id, response)) = self.protocol.next_response().map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let answered = match response {
            Response::Write { applied: true, .. } => Answered::Stored,
            Response::Get { found: Some(found) } => Answered::Found {
                value_bytes: found.value.len(),
            },
            Response::Get { found: None } => Answered::Missing,
            Response::Error(error) => Answered::Refused(error.message.to_owned()),
            other => Answered::Refused(format!("an answer that fits no request of ours: {other:?}")),
        };
        Ok(Some((id.slot(), answered)))
    }
}
