//! Lists inside messages: a slice on the way out, the received bytes on the way in.
//!
//! A type for each kind of element rather than one generic type: a list over an associated table type would be
//! invariant in its lifetime, and with it every request.

/// Makes the type `$List<'a>` of elements `$Element`, which are read from tables `$Table` by `$read`; the tables were
/// verified, and found to mean something, before a list of them is handed out.
macro_rules! list {
    ($(#[$doc:meta])* $List:ident, $ListIter:ident, $Element:ty, $Table:ty, $read:expr) => {
        $(#[$doc])*
        ///
        /// Cheap to copy; reading allocates nothing.
        #[derive(Clone, Copy)]
        pub struct $List<'a>(ListSource<'a, $Element, $Table>);

        /// Iterator over the elements of the list of the same name.
        #[derive(Clone)]
        pub struct $ListIter<'a>(ListSourceIter<'a, $Element, $Table>);

        impl<'a> $List<'a> {
            /// The list in a received message.
            pub(super) fn received(vector: Vector<'a, ForwardsUOffset<$Table>>) -> $List<'a> {
                $List(ListSource::Received(vector))
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match &self.0 {
                    ListSource::Slice(elements) => elements.len(),
                    ListSource::Received(elements) => elements.len(),
                }
            }

            /// Is there no element?
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The elements in order.
            pub fn iter(&self) -> $ListIter<'a> {
                $ListIter(match &self.0 {
                    ListSource::Slice(elements) => ListSourceIter::Slice(elements.iter()),
                    ListSource::Received(elements) => ListSourceIter::Received(elements.iter()),
                })
            }

            /// The element at a position.
            ///
            /// # Panics
            /// If there is none.
            pub fn at(&self, position: usize) -> $Element {
                match &self.0 {
                    ListSource::Slice(elements) => elements[position],
                    ListSource::Received(elements) => $read(elements.get(position)),
                }
            }
        }

        impl Default for $List<'_> {
            fn default() -> Self {
                $List(ListSource::Slice(&[]))
            }
        }

        impl<'a> From<&'a [$Element]> for $List<'a> {
            fn from(elements: &'a [$Element]) -> $List<'a> {
                $List(ListSource::Slice(elements))
            }
        }

        impl<'a> IntoIterator for $List<'a> {
            type Item = $Element;
            type IntoIter = $ListIter<'a>;

            fn into_iter(self) -> $ListIter<'a> {
                self.iter()
            }
        }

        impl<'a> IntoIterator for &$List<'a> {
            type Item = $Element;
            type IntoIter = $ListIter<'a>;

            fn into_iter(self) -> $ListIter<'a> {
                self.iter()
            }
        }

        impl PartialEq for $List<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.iter().eq(other.iter())
            }
        }

        impl Eq for $List<'_> {}

        impl fmt::Debug for $List<'_> {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.debug_list().entries(self.iter()).finish()
            }
        }

        impl fmt::Debug for $ListIter<'_> {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.debug_list().entries(self.clone()).finish()
            }
        }

        impl<'a> Iterator for $ListIter<'a> {
            type Item = $Element;

            fn next(&mut self) -> Option<$Element> {
                match &mut self.0 {
                    ListSourceIter::Slice(elements) => elements.next().copied(),
                    ListSourceIter::Received(elements) => elements.next().map($read),
                }
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                match &self.0 {
                    ListSourceIter::Slice(elements) => elements.size_hint(),
                    ListSourceIter::Received(elements) => elements.size_hint(),
                }
            }
        }

        impl<'a> DoubleEndedIterator for $ListIter<'a> {
            fn next_back(&mut self) -> Option<$Element> {
                match &mut self.0 {
                    ListSourceIter::Slice(elements) => elements.next_back().copied(),
                    ListSourceIter::Received(elements) => elements.next_back().map($read),
                }
            }
        }

        impl ExactSizeIterator for $ListIter<'_> {}
    };
}

use std::fmt;

use flatbuffers::{Follow, ForwardsUOffset, Vector, VectorIter};

use super::response::{MultiValue, ScanEntry};
use super::write::{BatchOperation, PutEntry};
use crate::generated::client_generated::ostrakon::wire as tables;

#[derive(Clone, Copy)]
enum ListSource<'a, Element, Table> {
    Slice(&'a [Element]),
    Received(Vector<'a, ForwardsUOffset<Table>>),
}

#[derive(Clone)]
enum ListSourceIter<'a, Element, Table: Follow<'a>> {
    Slice(std::slice::Iter<'a, Element>),
    Received(VectorIter<'a, ForwardsUOffset<Table>>),
}

list!(
    /// The keys of a multi-get.
    Keys, KeysIter, &'a [u8], tables::Key<'a>, |table: tables::Key<'a>| table.key().bytes()
);

list!(
    /// The entries of a multi-put.
    PutEntries, PutEntriesIter, PutEntry<'a>, tables::PutEntry<'a>, PutEntry::from_table
);

list!(
    /// The operations of a batch.
    BatchOperations, BatchOperationsIter, BatchOperation<'a>, tables::BatchOperation<'a>, BatchOperation::of_checked
);

list!(
    /// The entries of a scan page.
    ScanEntries, ScanEntriesIter, ScanEntry<'a>, tables::ScanEntry<'a>, ScanEntry::from_table
);

list!(
    /// The values of a multi-get.
    MultiValues, MultiValuesIter, MultiValue<'a>, tables::MultiGetValue<'a>, MultiValue::from_table
);
