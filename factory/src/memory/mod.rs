//! Looking into a generation's files: digests, and what its memory is made of.
//!
//! Digests are BLAKE3 (`blake3:<hex>`): at several GB/s the state of every clone can be checked before it is loaded,
//! and a whole memory file in a fraction of a boot.

mod digest;
mod digests;
mod survey;

pub(crate) use digest::{bytes_digest, file_digest, reader_digest};
pub(crate) use digests::Digests;
pub use survey::MemorySurvey;
