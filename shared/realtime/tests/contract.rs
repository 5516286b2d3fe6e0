//! What the realtime port promises, asked of all three engines; and what only Redis can go through.

mod contract {
    mod cache;
    mod claim;
    mod cluster;
    mod drained;
    mod fanout;
    mod faults;
    mod janitor;
    mod presence;
    mod recovery;
    mod room_log;
    mod teller;
    mod world;
}
