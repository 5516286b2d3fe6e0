//! What the broker port promises, asked of both engines; and what only one of them can go through.

mod contract {
    mod bundles;
    mod embedded;
    mod faults;
    mod handover;
    mod letters;
    mod order;
    mod rabbitmq;
    mod raw;
    mod settling;
    mod shares;
    mod world;
}
