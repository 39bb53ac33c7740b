//! A message to the name server, and to one in whose place it may answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pmz_net::dns::try_message(bytes));
