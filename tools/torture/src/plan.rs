//! Which faults strike when: a function of the seed.
//!
//! Pure. The invariant: the same seed gives the same faults in the same order.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::cluster::Service;
use testkit::proxy::Weather;

use crate::fault::{Base, Fault, How, Who};
use crate::stage::Shape;

/// How far a clock is moved, at most.
pub const CLOCK_MOST_S: i64 = 5;

/// Steps from one rest to the next.
const RESTS_EVERY: usize = 5;
/// Steps from one fault that outlasts everything to the next.
const OUTLASTS_EVERY: usize = 31;
/// Longer than two rounds of pings, and than a gateway's lease.
const OUTLASTING_MS: std::ops::Range<u64> = 65_000..80_000;

/// Some faults at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// How long nothing happens before.
    pub calm: Duration,
    /// What happens.
    pub faults: Vec<Fault>,
    /// How long it lasts.
    pub hold: Duration,
}

/// How a plan is timed.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Every so often nothing happens for that long: what was late by then has no excuse.
    pub rest: Duration,
    /// Now and then a fault lasts longer than the leases and time-outs of the system.
    pub outlasts: bool,
}

/// Draws steps for ever.
pub struct Plan {
    shape: Shape,
    pace: Pace,
    steps: usize,
    rng: StdRng,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(shape: Shape, pace: Pace, seed: u64) -> Self {
        Self { shape, pace, steps: 0, rng: StdRng::seed_from_u64(seed.rotate_left(17) ^ 0x00C0_FFEE) }
    }

    fn step(&mut self) -> Step {
        self.steps += 1;
        let count = if self.rng.random_bool(0.3) { 2 } else { 1 };
        let mut faults: Vec<Fault> = Vec::new();
        while faults.len() < count {
            let fault = self.fault();
            // Two faults of one thing would undo one another.
            if faults.iter().all(|other| target(other) != target(&fault)) {
                faults.push(fault);
            }
        }
        let hold = match self.rng.random_range(0..10) {
            0..3 => self.rng.random_range(5..400),
            3..8 => self.rng.random_range(400..4_000),
            _ => self.rng.random_range(4_000..12_000),
        };
        // Drawn whether it is wanted or not, so that the plan does not depend on it.
        let outlasting = self.steps.is_multiple_of(OUTLASTS_EVERY).then(|| self.rng.random_range(OUTLASTING_MS));
        let hold = outlasting.filter(|_| self.pace.outlasts).unwrap_or(hold);
        let calm = Duration::from_millis(self.rng.random_range(300..3_000));
        let calm = if self.steps.is_multiple_of(RESTS_EVERY) { calm + self.pace.rest } else { calm };
        Step { calm, faults, hold: Duration::from_millis(hold) }
    }

    fn fault(&mut self) -> Fault {
        if self.shape == Shape::AllInOne { self.fault_of_one() } else { self.fault_of_many() }
    }

    fn fault_of_one(&mut self) -> Fault {
        let who = Who::Gateway(0);
        match self.rng.random_range(0..100) {
            0..40 => Fault::Program(who, How::Kill),
            40..50 => Fault::Program(who, How::Pause),
            50..58 => Fault::Program(who, How::Restart),
            58..76 => Fault::DiskFull,
            76..84 => Fault::Weather(who, Service::Clients, self.weather()),
            84..90 => Fault::Reset(who, Service::Clients),
            90..95 => Fault::Corrupt(who, Service::Clients, self.rng.random()),
            _ => self.clock(0),
        }
    }

    fn fault_of_many(&mut self) -> Fault {
        let gateway = self.rng.random_range(0..2);
        match self.rng.random_range(0..100) {
            0..28 => Fault::Program(self.who(), self.how()),
            28..42 => {
                let (who, service) = self.link();
                Fault::Weather(who, service, self.weather())
            }
            42..48 => {
                let (who, service) = self.link();
                Fault::Reset(who, service)
            }
            48..54 => {
                let (who, service) = self.link();
                Fault::Corrupt(who, service, self.rng.random())
            }
            54..59 => Fault::Wipe,
            59..74 => {
                let base = [Base::Postgres, Base::Redis, Base::RabbitMq][self.rng.random_range(0..3)];
                Fault::Service(base, self.how())
            }
            74..78 => Fault::MemoryAlarm,
            78..81 => Fault::DiskAlarm,
            81..88 => Fault::CutTransactions,
            88..92 => self.clock(gateway),
            92..96 => Fault::AddProcessor,
            _ => Fault::RemoveProcessor(self.rng.random_bool(0.5)),
        }
    }

    /// A jump that is one.
    fn clock(&mut self, gateway: usize) -> Fault {
        let seconds = self.rng.random_range(1..=CLOCK_MOST_S);
        Fault::Clock(gateway, if self.rng.random() { seconds } else { -seconds })
    }

    fn who(&mut self) -> Who {
        match self.rng.random_range(0..10) {
            0 => Who::Api,
            1..5 => Who::Gateway(self.rng.random_range(0..2)),
            _ => Who::Processor(self.rng.random_range(0..3)),
        }
    }

    fn how(&mut self) -> How {
        match self.rng.random_range(0..10) {
            0..5 => How::Kill,
            5..8 => How::Pause,
            _ => How::Restart,
        }
    }

    /// A program and one of those it talks with.
    fn link(&mut self) -> (Who, Service) {
        let who = self.who();
        let services = [Service::Postgres, Service::Redis, Service::RabbitMq, Service::Clients];
        let count = if matches!(who, Who::Processor(_)) { 3 } else { 4 };
        (who, services[self.rng.random_range(0..count)])
    }

    fn weather(&mut self) -> Weather {
        match self.rng.random_range(0..3) {
            0 => Weather::Cut,
            1 => Weather::Slow {
                delay: Duration::from_millis(self.rng.random_range(20..800)),
                bytes_per_s: self.rng.random_range(20_000..500_000),
            },
            _ => {
                let both = self.rng.random_range(0..3);
                Weather::HalfOpen { towards_server: both != 1, towards_client: both != 0 }
            }
        }
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        Some(self.step())
    }
}

/// What a fault strikes, roughly.
fn target(fault: &Fault) -> String {
    match fault {
        // Which processor has which number changes with them.
        Fault::AddProcessor
        | Fault::RemoveProcessor(_)
        | Fault::Program(Who::Processor(_), _)
        | Fault::Weather(Who::Processor(_), ..)
        | Fault::Reset(Who::Processor(_), _)
        | Fault::Corrupt(Who::Processor(_), ..) => "processors".to_owned(),
        // A gateway that is killed takes its connections with it.
        Fault::Program(who, _) | Fault::Weather(who, ..) | Fault::Reset(who, _) | Fault::Corrupt(who, ..) => {
            who.to_string()
        }
        Fault::Service(base, _) => format!("{base:?}"),
        Fault::Wipe => "Redis".to_owned(),
        Fault::MemoryAlarm | Fault::DiskAlarm => "RabbitMq".to_owned(),
        Fault::CutTransactions => "Postgres".to_owned(),
        Fault::Clock(number, _) => format!("clock {number}"),
        Fault::DiskFull => format!("{}", Who::Gateway(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { rest: Duration::from_secs(9), outlasts: true };

    #[test]
    fn a_seed_gives_one_plan() {
        for shape in [Shape::Distributed, Shape::AllInOne] {
            let of = |seed| Plan::new(shape, PACE, seed).take(50).collect::<Vec<_>>();
            assert_eq!(of(7), of(7));
            assert_ne!(of(7), of(8));
        }
    }

    #[test]
    fn two_faults_of_a_step_strike_different_things() {
        for step in Plan::new(Shape::Distributed, PACE, 3).take(500) {
            let mut targets: Vec<String> = step.faults.iter().map(target).collect();
            targets.dedup();
            assert_eq!(targets.len(), step.faults.len(), "{step:?}");
        }
    }

    #[test]
    fn there_are_rests_and_faults_that_outlast_leases() {
        let steps: Vec<Step> = Plan::new(Shape::AllInOne, PACE, 1).take(40).collect();
        assert_eq!(steps.iter().filter(|step| step.calm >= PACE.rest).count(), 8);
        assert!(steps.iter().any(|step| step.hold > Duration::from_mins(1)));
    }
}
