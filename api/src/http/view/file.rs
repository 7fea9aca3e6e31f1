//! What goes with the bytes of a file.

use http::HeaderName;

/// The permission bits of a file, octal.
pub(crate) const X_VMINT_MODE: HeaderName = HeaderName::from_static("x-vmint-mode");
