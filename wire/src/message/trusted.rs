//! Reading of tables that this process has verified before, without verifying them again.
//!
//! Every access is checked by slice indexing only, which is all that memory safety needs: bytes that were not
//! verified can make it panic or return nonsense, never read outside the body. It allocates nothing.

/// Number of a field of a table: its position in the schema.
pub(super) type Slot = usize;

/// A flatbuffers table inside a body.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    body: &'a [u8],
    /// Where the table starts.
    start: usize,
    /// Its vtable: own length, length of the table, then one offset per slot.
    vtable: &'a [u8],
}

impl<'a> Table<'a> {
    /// The root table of `body`.
    pub(super) fn root(body: &'a [u8]) -> Table<'a> {
        let table = u32_at(body, 0) as usize;
        let back = i64::from(u32_at(body, table).cast_signed());
        let vtable_at = (table as i64 - back) as usize;
        let vtable_bytes = u16_at(body, vtable_at) as usize;
        Table {
            body,
            start: table,
            vtable: &body[vtable_at..vtable_at + vtable_bytes],
        }
    }

    /// Where the field's content is, unless it has its default.
    fn position(&self, slot: Slot) -> Option<usize> {
        let entry = 4 + 2 * slot;
        let offset = self.vtable.get(entry..entry + 2)?;
        match u16::from_le_bytes([offset[0], offset[1]]) {
            0 => None,
            offset => Some(self.start + offset as usize),
        }
    }

    pub(super) fn u8_or_zero(&self, slot: Slot) -> u8 {
        self.position(slot).map_or(0, |at| self.body[at])
    }

    pub(super) fn u32_or_zero(&self, slot: Slot) -> u32 {
        self.position(slot).map_or(0, |at| u32_at(self.body, at))
    }

    pub(super) fn u64_or_zero(&self, slot: Slot) -> u64 {
        self.position(slot)
            .map_or(0, |at| u64::from_le_bytes(bytes_at(self.body, at)))
    }

    /// The bytes of a struct.
    pub(super) fn fixed<const N: usize>(&self, slot: Slot) -> Option<[u8; N]> {
        self.position(slot).map(|at| bytes_at(self.body, at))
    }

    /// The content of a vector of bytes.
    pub(super) fn bytes(&self, slot: Slot) -> Option<&'a [u8]> {
        let at = self.position(slot)?;
        let vector = at + u32_at(self.body, at) as usize;
        let length = u32_at(self.body, vector) as usize;
        Some(&self.body[vector + 4..vector + 4 + length])
    }
}

fn bytes_at<const N: usize>(body: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&body[at..at + N]);
    bytes
}

fn u16_at(body: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(body, at))
}

fn u32_at(body: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(body, at))
}
