//! The classes among one another, while the most urgent one never runs empty.

use std::time::Duration;

use domain::{Class, EventKind};
use rstest::rstest;

use super::world::{Kind, World, next, settle};

/// What a processor takes at once.
const BATCH: usize = 400;
/// Events of the urgent class that wait: more than are received here.
const HIGH: u32 = 8_000;
/// Events of each other class: as many as their least share of what is received is, and more.
const OTHERS: u32 = 1_000;
/// What a processor needs for a batch, and then sees no class empty that is not.
const WORK: Duration = Duration::from_millis(20);
const RECEIVED: usize = 6_000;

#[rstest]
#[tokio::test]
async fn while_the_urgent_class_is_full_each_other_one_gets_a_twentieth(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    world.publish_many(EventKind::MessageSend, 0..HIGH).await;
    world.publish_many(EventKind::MessageEdit, 0..OTHERS).await;
    world.publish_many(EventKind::Typing, 0..OTHERS).await;
    let mut consumer = world.consume().await;
    let mut counts = [0_usize; 3];
    while counts.iter().sum::<usize>() < RECEIVED {
        let batch = next(&mut consumer, BATCH).await;
        for incoming in &batch {
            counts[incoming.class.index()] += 1;
        }
        settle(&mut consumer, batch).await;
        tokio::time::sleep(WORK).await;
    }
    let total: usize = counts.iter().sum();
    for class in [Class::Medium, Class::Low] {
        let share = counts[class.index()] as f64 / total as f64;
        assert!(share > 0.045, "{class}: {counts:?}");
    }
    assert!(counts[Class::High.index()] > total * 8 / 10, "the urgent class gets the most: {counts:?}");
}
