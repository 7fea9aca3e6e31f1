//! The entry of vmint's program inside the guest; the program is [`vmint_guest`].

#![no_main]

use std::ffi::{c_char, c_int};

// SAFETY: the C library calls the one symbol of this name with these arguments, and there is no other main.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    vmint_guest::main().into()
}
