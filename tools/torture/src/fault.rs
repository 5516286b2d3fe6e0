//! Faults: what they are, and how they are done and undone.
//!
//! The invariant: whatever was begun can be ended, also when another fault struck the same thing
//! meanwhile.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use testkit::cluster::{Node, Removal, Service};
use testkit::proxy::{Proxy, Weather, Whom};
use testkit::services::cut_transactions;

use crate::stage::Stage;

/// How long a program that was asked to end may take.
const END_LIMIT: Duration = Duration::from_secs(30);
/// More processors than these are not added.
const PROCESSORS_MOST: usize = 4;

/// One of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The REST api.
    Api,
    /// A gateway by number; of the all-in-one, the program itself.
    Gateway(usize),
    /// A processor by number, as many as there are then.
    Processor(usize),
}

/// What happens to something that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// An orderly end, and a new start.
    Restart,
}

/// A service that the programs stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The database.
    Postgres,
    /// The cache; it forgets everything when it ends.
    Redis,
    /// The broker.
    RabbitMq,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Something happens to a program.
    Program(Who, How),
    /// Something happens to a service.
    Service(Base, How),
    /// Bad weather between a program and a service, or its clients.
    Weather(Who, Service, Weather),
    /// Every connection between the two is reset.
    Reset(Who, Service),
    /// Garbage on one connection between the two, or on all of them.
    Corrupt(Who, Service, u64),
    /// Redis forgets everything and goes on.
    Wipe,
    /// The broker believes that its memory is full.
    MemoryAlarm,
    /// The broker believes that its disk is full.
    DiskAlarm,
    /// Sessions of the database are ended in their transactions.
    CutTransactions(Duration),
    /// A gateway's clock jumps to so many seconds ahead.
    Clock(usize, i64),
    /// One processor more.
    AddProcessor,
    /// One processor less, by SIGKILL or in good order.
    RemoveProcessor(bool),
    /// The all-in-one cannot write any more.
    DiskFull,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api => f.write_str("api"),
            Self::Gateway(number) => write!(f, "gateway {number}"),
            Self::Processor(number) => write!(f, "processor {number}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(who, how) => write!(f, "{who}: {how:?}"),
            Self::Service(base, how) => write!(f, "{base:?}: {how:?}"),
            Self::Weather(who, service, weather) => write!(f, "{who} – {service}: {weather:?}"),
            Self::Reset(who, service) => write!(f, "{who} – {service}: connections reset"),
            Self::Corrupt(who, service, _) => write!(f, "{who} – {service}: garbage"),
            Self::Wipe => f.write_str("Redis: wiped"),
            Self::MemoryAlarm => f.write_str("RabbitMq: memory alarm"),
            Self::DiskAlarm => f.write_str("RabbitMq: disk alarm"),
            Self::CutTransactions(_) => f.write_str("Postgres: transactions cut"),
            Self::Clock(number, seconds) => write!(f, "gateway {number}: clock {seconds:+} s"),
            Self::AddProcessor => f.write_str("a processor more"),
            Self::RemoveProcessor(true) => f.write_str("a processor less, killed"),
            Self::RemoveProcessor(false) => f.write_str("a processor less"),
            Self::DiskFull => f.write_str("disk full"),
        }
    }
}

impl Fault {
    /// Does it.
    pub async fn begin(self, stage: &mut Stage) -> anyhow::Result<()> {
        match self {
            Self::Program(who, how) => begin_program(stage.node(who), how).await,
            Self::Service(base, how) => begin_service(stage, base, how).await,
            Self::Weather(who, service, weather) => proxy(stage, who, service)?.set(weather),
            Self::Reset(who, service) => drop(proxy(stage, who, service)?.reset_all()),
            Self::Corrupt(who, service, seed) => {
                let whom = if seed % 3 == 0 { Whom::All } else { Whom::One };
                proxy(stage, who, service)?.corrupt(seed, whom);
            }
            Self::Wipe => drop(stage.system.redis().command("FLUSHALL").await),
            Self::MemoryAlarm => stage.rabbit()?.raise_alarm().await,
            Self::DiskAlarm => stage.rabbit()?.raise_disk_alarm().await,
            Self::CutTransactions(limit) => drop(cut_transactions(&stage.postgres()?.url(), limit).await),
            Self::Clock(number, seconds) => stage.system.gateway(number).set_clock_ahead(seconds),
            Self::AddProcessor if stage.system.processors.len() < PROCESSORS_MOST => {
                stage.system.spawn_processor().await;
            }
            Self::RemoveProcessor(kill) if stage.system.processors.len() > 1 => {
                let how = if kill { Removal::Kill9 } else { Removal::Terminate(END_LIMIT) };
                stage.system.remove_processor(0, how).await;
            }
            Self::AddProcessor | Self::RemoveProcessor(_) => {}
            // Not one byte more than there is now, in any of its files.
            Self::DiskFull => stage.system.gateway(0).limit_file_size(Some(0)),
        }
        Ok(())
    }

    /// Undoes it.
    pub async fn end(self, stage: &mut Stage) -> anyhow::Result<()> {
        match self {
            Self::Program(who, How::Pause) => stage.node(who).resume(),
            Self::Program(who, _) if stage.node(who).ended().is_some() => stage.node(who).spawn_again(),
            Self::Service(base, how) => end_service(stage, base, how).await,
            Self::Weather(who, service, _) => proxy(stage, who, service)?.set(Weather::Fine),
            Self::MemoryAlarm => stage.rabbit()?.end_alarm().await,
            Self::DiskAlarm => stage.rabbit()?.end_disk_alarm().await,
            Self::DiskFull => stage.system.gateway(0).limit_file_size(None),
            _ => {}
        }
        Ok(())
    }
}

fn proxy(stage: &Stage, who: Who, service: Service) -> anyhow::Result<&Proxy> {
    stage.node(who).proxy(service).with_context(|| format!("{who} has no proxy to {service}"))
}

async fn begin_program(node: &Node, how: How) {
    match how {
        How::Kill => node.kill9().await,
        How::Pause => node.pause(),
        How::Restart => {
            if node.try_terminate(END_LIMIT).await.is_none() {
                node.kill9().await;
            }
        }
    }
}

async fn begin_service(stage: &Stage, base: Base, how: How) {
    match (base, how) {
        (Base::Redis, How::Kill) => stage.system.redis().kill9().await,
        (Base::Redis, How::Pause) => stage.system.redis().pause(),
        (Base::Redis, How::Restart) => stage.system.redis().stop().await,
        (Base::Postgres, _) => {
            let Ok(postgres) = stage.postgres() else { return };
            match how {
                How::Kill => postgres.kill9().await,
                How::Pause => postgres.pause().await,
                How::Restart => postgres.stop().await,
            }
        }
        (Base::RabbitMq, _) => {
            let Ok(rabbit) = stage.rabbit() else { return };
            match how {
                How::Kill => rabbit.kill9().await,
                How::Pause => rabbit.pause().await,
                How::Restart => rabbit.stop().await,
            }
        }
    }
}

async fn end_service(stage: &Stage, base: Base, how: How) {
    match (base, how) {
        (Base::Redis, How::Pause) => stage.system.redis().resume(),
        (Base::Redis, _) => stage.system.redis().start_again().await,
        (Base::Postgres, _) => {
            let Ok(postgres) = stage.postgres() else { return };
            if how == How::Pause { postgres.resume().await } else { postgres.start_again().await }
        }
        (Base::RabbitMq, _) => {
            let Ok(rabbit) = stage.rabbit() else { return };
            if how == How::Pause { rabbit.resume().await } else { rabbit.start_again().await }
        }
    }
}
