//! Locks that are held for moments only, and never across an `await`.

pub(crate) use vmint_factory::lock;
