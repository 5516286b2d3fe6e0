//! The hot paths by the clock, for people: `cargo bench -p guards`.

use divan::counter::ItemsCount;
use guards::{Path, work};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = Path::ALL.map(Path::name), sample_size = 1, sample_count = 500)]
fn message(bencher: divan::Bencher<'_, '_>, name: &str) {
    let path = Path::parse(name).expect("known");
    let work = std::cell::RefCell::new(path.work());
    work::warm_up(&mut **work.borrow_mut());
    bencher
        .counter(ItemsCount::new(path.recipients()))
        .with_inputs(|| work.borrow_mut().prepare())
        .bench_local_values(|()| work.borrow_mut().operate());
}
