//! From one consumer to the next.

use broker::Consumer;
use domain::EventKind;
use rstest::rstest;

use super::world::{Kind, World, drain, names, next, nothing, receive, settle};

/// How a consumer ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Closed,
    Dropped,
    /// Asked for nothing more first.
    Stopped,
}

async fn end(mut consumer: Consumer, ending: Ending) {
    match ending {
        Ending::Closed => consumer.close().await,
        Ending::Dropped => drop(consumer),
        Ending::Stopped => {
            consumer.begin_stop().await.expect("connected");
            consumer.close().await;
        }
    }
}

#[rstest]
#[tokio::test]
async fn what_was_not_settled_comes_again_in_order_before_anything_newer(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
    #[values(Ending::Closed, Ending::Dropped, Ending::Stopped)] ending: Ending,
) {
    let world = World::new(kind).await;
    world.publish(EventKind::MessageSend, 0..300).await;
    world.publish(EventKind::Typing, 1_000..1_010).await;
    let mut consumer = world.consume().await;
    let settled = drain(&mut consumer, 100, 50).await;
    let unsettled = names(&next(&mut consumer, 50).await);
    end(consumer, ending).await;
    world.publish(EventKind::MessageSend, 300..310).await;

    let mut successor = world.consume().await;
    let first = next(&mut successor, 50).await;
    assert!(first.iter().any(|incoming| incoming.redelivered));
    let mut again = names(&first);
    settle(&mut successor, first).await;
    again.extend(drain(&mut successor, 310 - settled.len() - again.len(), 50).await);
    let rest = receive(&mut successor, 320 - settled.len() - again.len()).await;
    again.extend(names(&rest));
    let of =
        |names: &[u32], high: bool| names.iter().copied().filter(|name| (*name < 1_000) == high).collect::<Vec<_>>();
    for high in [true, false] {
        let all = [of(&settled, high), of(&again, high)].concat();
        assert_eq!(all, if high { (0..310).collect::<Vec<_>>() } else { (1_000..1_010).collect() });
    }
    assert!(unsettled.iter().all(|name| again.contains(name)));
    settle_and_see_nothing(&world, successor, rest.len()).await;
}

/// Gives the rest back and lets the last consumer settle all of it.
async fn settle_and_see_nothing(world: &World, consumer: Consumer, count: usize) {
    consumer.close().await;
    let mut last = world.consume().await;
    let batch = receive(&mut last, count).await;
    settle(&mut last, batch).await;
    nothing(&mut last).await;
}

#[rstest]
#[tokio::test]
async fn a_consumer_that_stops_drains_and_its_successor_gets_the_rest(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    world.publish(EventKind::MessageSend, 0..600).await;
    let mut consumer = world.consume().await;
    let first = next(&mut consumer, 10).await;
    let mut received = names(&first);
    settle(&mut consumer, first).await;
    consumer.begin_stop().await.expect("connected");
    loop {
        let batch = next(&mut consumer, 50).await;
        if batch.is_empty() {
            break;
        }
        received.extend(names(&batch));
        settle(&mut consumer, batch).await;
    }
    consumer.close().await;
    assert!(received.len() < 600, "it did not go on for ever");

    let mut successor = world.consume().await;
    received.extend(drain(&mut successor, 600 - received.len(), 50).await);
    assert_eq!(received, (0..600).collect::<Vec<_>>());
    nothing(&mut successor).await;
}

#[rstest]
#[tokio::test]
async fn consumers_change_under_load_without_loss_repeat_or_disorder(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    const COUNT: u32 = 3_000;
    let world = World::new(kind).await;
    let receiving = async {
        let mut received = Vec::new();
        while received.len() < COUNT as usize {
            let mut consumer = world.consume().await;
            for _ in 0..3 {
                if received.len() < COUNT as usize {
                    let batch = next(&mut consumer, 100).await;
                    received.extend(names(&batch));
                    settle(&mut consumer, batch).await;
                }
            }
            consumer.close().await;
        }
        received
    };
    let ((), received) = tokio::join!(world.publish_many(EventKind::MessageSend, 0..COUNT), receiving);
    assert_eq!(received, (0..COUNT).collect::<Vec<_>>());
}

#[rstest]
#[tokio::test]
async fn giving_up_waiting_for_a_batch_loses_nothing(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let mut consumer = world.consume().await;
    let publishing = world.publish_many(EventKind::MessageSend, 0..500);
    let receiving = async {
        let mut received = Vec::new();
        while received.len() < 500 {
            // Gives up after every look.
            if let Ok(batch) = tokio::time::timeout(std::time::Duration::ZERO, consumer.next_batch(7)).await {
                let batch = batch.expect("connected");
                received.extend(names(&batch));
                settle(&mut consumer, batch).await;
            }
            tokio::task::yield_now().await;
        }
        received
    };
    let ((), received) = tokio::join!(publishing, receiving);
    assert_eq!(received, (0..500).collect::<Vec<_>>());
}
