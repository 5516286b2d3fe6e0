//! Faults: what they are, and how they are done and undone.
//!
//! The invariant: whatever was begun can be ended, also when another fault struck the same thing
//! meanwhile.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::cluster::{Node, Removal, Service};
use testkit::proxy::{Proxy, Weather, Whom};
use testkit::services::cut_transactions;

use crate::history::{API, Reach};
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
    CutTransactions,
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
            Self::CutTransactions => f.write_str("Postgres: transactions cut"),
            Self::Clock(number, seconds) => write!(f, "gateway {number}: clock {seconds:+} s"),
            Self::AddProcessor => f.write_str("a processor more"),
            Self::RemoveProcessor(true) => f.write_str("a processor less, killed"),
            Self::RemoveProcessor(false) => f.write_str("a processor less"),
            Self::DiskFull => f.write_str("disk full"),
        }
    }
}

impl Fault {
    /// Does it. False when there was nothing to strike: nobody was connected there, or there are as many
    /// processors as there may be.
    pub async fn begin(self, stage: &mut Stage) -> anyhow::Result<bool> {
        match self {
            Self::Program(who, how) => begin_program(stage.node(who), how).await?,
            Self::Service(base, how) => begin_service(stage, base, how).await,
            Self::Weather(who, service, weather) => proxy(stage, who, service)?.set(weather),
            Self::Reset(who, service) => return Ok(proxy(stage, who, service)?.reset_all() > 0),
            Self::Corrupt(who, service, seed) => {
                let whom = if seed % 3 == 0 { Whom::All } else { Whom::One };
                return Ok(proxy(stage, who, service)?.corrupt(seed, whom) > 0);
            }
            // Away already: it forgot everything.
            Self::Wipe => return Ok(stage.system.redis().command("FLUSHALL").await.is_ok()),
            Self::MemoryAlarm => stage.rabbit()?.raise_alarm().await,
            Self::DiskAlarm => stage.rabbit()?.raise_disk_alarm().await,
            Self::CutTransactions => {}
            Self::Clock(number, seconds) => stage.system.gateway(number).set_clock_ahead(seconds),
            Self::AddProcessor if stage.system.processors.len() < PROCESSORS_MOST => {
                stage.system.spawn_processor().await;
            }
            Self::RemoveProcessor(kill) if stage.system.processors.len() > 1 => {
                let how = if kill { Removal::Kill9 } else { Removal::Terminate(END_LIMIT) };
                let ended = stage.system.remove_processor(0, how).await;
                ensure!(kill || ended.is_some_and(|it| it.success()), "a processor was to end and did: {ended:?}");
            }
            Self::AddProcessor | Self::RemoveProcessor(_) => return Ok(false),
            Self::DiskFull => match stage.disk() {
                Some(disk) => drop(disk.fill(0)),
                // Not a byte into any of its files.
                None => stage.system.gateway(0).limit_file_size(Some(0)),
            },
        }
        Ok(true)
    }

    /// To whom deliveries may come late for it, and whose connections may end.
    pub fn delays(self) -> Reach {
        match self {
            Self::Program(Who::Gateway(number), _) | Self::Clock(number, _) => Reach::gateway(number),
            Self::Program(Who::Api, _) | Self::MemoryAlarm | Self::DiskAlarm => Reach::Nobody,
            Self::Weather(who, service, _) | Self::Reset(who, service) | Self::Corrupt(who, service, _) => match who {
                Who::Api => Reach::Nobody,
                // What is not published yet is not stored yet, either.
                Who::Gateway(_) if service == Service::RabbitMq => Reach::Nobody,
                Who::Gateway(number) => Reach::gateway(number),
                Who::Processor(_) => Reach::Everybody,
            },
            _ => Reach::Everybody,
        }
    }

    /// Who may not learn in time that a membership ended: gateways look for that in Redis and the store
    /// and need neither a processor nor the broker.
    pub fn blinds(self) -> Reach {
        match self {
            Self::Program(Who::Processor(_), _)
            | Self::Weather(Who::Processor(_), ..)
            | Self::Reset(Who::Processor(_), _)
            | Self::Corrupt(Who::Processor(_), ..)
            | Self::Service(Base::RabbitMq, _)
            | Self::AddProcessor
            | Self::RemoveProcessor(_) => Reach::Nobody,
            other => other.delays(),
        }
    }

    /// Where requests may be refused, or not be answered.
    pub fn refuses(self) -> Reach {
        match self {
            Self::Program(Who::Gateway(number), _)
            | Self::Clock(number, _)
            | Self::Weather(Who::Gateway(number), ..)
            | Self::Reset(Who::Gateway(number), _)
            | Self::Corrupt(Who::Gateway(number), ..) => Reach::gateway(number),
            Self::Program(Who::Api, _)
            | Self::Weather(Who::Api, ..)
            | Self::Reset(Who::Api, _)
            | Self::Corrupt(Who::Api, ..) => Reach::gateway(API),
            Self::Program(..)
            | Self::Weather(..)
            | Self::Reset(..)
            | Self::Corrupt(..)
            | Self::AddProcessor
            | Self::RemoveProcessor(_) => Reach::Nobody,
            _ => Reach::Everybody,
        }
    }

    /// Whose connections may go silent, and end for that long after.
    pub fn silences(self) -> Reach {
        match self {
            Self::Weather(Who::Gateway(number), Service::Clients, Weather::Slow { .. } | Weather::HalfOpen { .. })
            | Self::Program(Who::Gateway(number), How::Pause) => Reach::gateway(number),
            _ => Reach::Nobody,
        }
    }

    /// What it does as long as it lasts. False when there was nothing to strike in all that time.
    pub async fn last(self, stage: &Stage, hold: Duration) -> anyhow::Result<bool> {
        if self == Self::CutTransactions {
            return Ok(cut_transactions(&stage.postgres()?.url(), hold).await? > 0);
        }
        tokio::time::sleep(hold).await;
        Ok(true)
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
            Self::DiskFull => match stage.disk() {
                Some(disk) => disk.relieve(),
                None => stage.system.gateway(0).limit_file_size(None),
            },
            _ => {}
        }
        Ok(())
    }
}

fn proxy(stage: &Stage, who: Who, service: Service) -> anyhow::Result<&Proxy> {
    stage.node(who).proxy(service).with_context(|| format!("{who} has no proxy to {service}"))
}

async fn begin_program(node: &Node, how: How) -> anyhow::Result<()> {
    match how {
        How::Kill => node.kill9().await,
        How::Pause => node.pause(),
        How::Restart => {
            let ended = node.try_terminate(END_LIMIT).await;
            if ended.is_none() {
                node.kill9().await;
            }
            ensure!(
                ended.is_some_and(|it| it.success()),
                "{} was to end in good order and did: {ended:?}",
                node.label()
            );
        }
    }
    Ok(())
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
