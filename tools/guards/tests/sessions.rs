//! What a session takes up in memory stays within what the product promises.

use std::alloc::System;

use gateway::Dialect;
use guards::sessions::{Held, measure};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Of the 8 KiB that an idle connection may take up, what is not the kernel's, the allocator's or the runtime's.
const SESSION_BYTES: usize = 4_096;

#[test]
fn a_session_in_five_rooms_is_small_and_gives_back_what_it_was_told_with() {
    for dialect in [Dialect::Native, Dialect::SocketIo] {
        let Held { fresh, used } = measure(2_000, dialect, ALLOCATOR);
        assert!((500..SESSION_BYTES).contains(&fresh), "{dialect:?}: {fresh} bytes");
        assert!(used < fresh + fresh / 4, "{dialect:?}: {used} bytes after {fresh}");
    }
}
