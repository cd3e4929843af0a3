//! The numbers of a client's session: which writes are open, and what the client may say of them. A second
//! implementation of what `ostrakon_client` does, so that neither believes the other.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use ostrakon_wire::message::Retry;

/// Sequences after which a client takes another session.
const SEQUENCES_MAX: u64 = 150;

/// One session.
#[derive(Debug)]
pub struct Session {
    id: u128,
    next: Cell<u64>,
    /// Sequences whose answers the client does not have, and has not given up.
    open: RefCell<BTreeSet<u64>>,
    /// The highest report that went out.
    reported: Cell<u64>,
    first_sent: Cell<u64>,
}

/// One write of a session, over all its sendings.
#[derive(Debug)]
pub struct Sequence {
    /// Its session.
    pub session: Rc<Session>,
    number: u64,
    first_sent: u64,
}

/// The sessions of one client, one after the other.
pub struct Sessions {
    client: u64,
    count: Cell<u64>,
    now: RefCell<Option<Rc<Session>>>,
}

impl Sessions {
    /// Of a client with this number, which no other has.
    pub fn new(client: u64) -> Sessions {
        Sessions {
            client,
            count: Cell::new(0),
            now: RefCell::default(),
        }
    }

    /// A session that nobody has used.
    pub fn fresh(&self) -> Rc<Session> {
        self.count.set(self.count.get() + 1);
        // Spread, so that the tree of sessions is filled in no order.
        let spread = (self.client << 32 | self.count.get()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Rc::new(Session {
            id: u128::from(spread) << 64 | u128::from(self.client << 32 | self.count.get()),
            next: Cell::new(0),
            open: RefCell::default(),
            reported: Cell::new(0),
            first_sent: Cell::new(0),
        })
    }

    /// The session of the client's next write.
    pub fn current(&self) -> Rc<Session> {
        let mut now = self.now.borrow_mut();
        match &*now {
            Some(session) if session.next.get() < SEQUENCES_MAX => Rc::clone(session),
            _ => Rc::clone(now.insert(self.fresh())),
        }
    }

    /// The client goes on as a new one.
    pub fn forget(&self) {
        *self.now.borrow_mut() = None;
    }
}

impl Session {
    /// Takes the next sequence for a write that is sent now, as far as the client knows the server's clock.
    pub fn begin(self: &Rc<Session>, now: u64) -> Sequence {
        self.begin_at(self.next.get(), now)
    }

    /// Takes a sequence that lies anywhere above all others.
    pub fn begin_at(self: &Rc<Session>, number: u64, now: u64) -> Sequence {
        assert!(number >= self.next.get(), "sequences rise");
        self.next.set(number + 1);
        self.open.borrow_mut().insert(number);
        // It does not fall while the sequence rises.
        let first_sent = self.first_sent.get().max(now);
        self.first_sent.set(first_sent);
        Sequence {
            session: Rc::clone(self),
            number,
            first_sent,
        }
    }

    /// Reports that all below are answered, although none was sent.
    pub fn skip_to(&self, number: u64) {
        self.next.set(number);
    }

    fn answered_below(&self) -> u64 {
        self.open.borrow().first().copied().unwrap_or(self.next.get())
    }
}

impl Sequence {
    /// What goes with a sending now.
    pub fn retry(&self) -> Retry {
        let answered_below = self.session.answered_below().min(self.number);
        self.session
            .reported
            .set(self.session.reported.get().max(answered_below));
        Retry {
            session: self.session.id,
            sequence: self.number,
            answered_below,
            first_sent: self.first_sent,
        }
    }

    /// When it was sent first.
    pub fn first_sent(&self) -> u64 {
        self.first_sent
    }

    /// The client has its answer, or has given it up.
    pub fn end(&self) {
        self.session.open.borrow_mut().remove(&self.number);
    }

    /// True if the client has said that it needs the answer no more.
    pub fn is_reported(&self) -> bool {
        self.session.reported.get() > self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_never_covers_what_is_open() {
        let sessions = Sessions::new(3);
        let session = sessions.current();
        let (first, second) = (session.begin(100), session.begin(90));
        assert_eq!(
            (first.retry().answered_below, second.retry().answered_below),
            (0, 0)
        );
        assert_eq!(second.retry().first_sent, 100, "it does not fall");
        second.end();
        let third = session.begin(120);
        assert_eq!(third.retry().answered_below, 0);
        assert!(!first.is_reported());
        first.end();
        assert_eq!(third.retry().answered_below, 2);
        assert!(first.is_reported() && second.is_reported() && !third.is_reported());
        assert_eq!(
            first.retry().answered_below,
            0,
            "a late one says nothing above itself"
        );
        assert_ne!(sessions.fresh().id, session.id);
    }
}
