//! Telling others that somebody came, went, or looks otherwise than they were told last.
//!
//! Whoever changed is due to be looked at; a slice of them is looked at together: one statement finds
//! whom it concerns, one round who of these listens, one the rest. The invariant: what was told is
//! noted only after it was published, so that a change may be told twice but not lost.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use domain::UserId;
use futures_util::{StreamExt as _, stream};
use protocol::{Channel, EventData, OpenedDelivery};
use realtime::{Look, Shown, Wish};
use telemetry::{Counter, Gauge};

use crate::apply::unavailable;
use crate::fanout::Planned;
use crate::presence::changed;
use crate::{Handlers, Unavailable};

/// Users looked at together.
const SLICE: usize = 250;
/// How many people at most are told of one change of presence.
const AUDIENCE: usize = 1000;
/// Looks at one user alone that are under way at the same time.
const ABREAST: usize = 8;
/// How long one slice may take, the taking included: less than it is held, or somebody else would tell
/// it at the same time.
const LIMIT: Duration = Duration::from_secs(4);

/// What one call of [`Handlers::tell_presence`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Users looked at.
    pub looked: usize,
    /// Of these, how many had changed for the others.
    pub told: usize,
    /// Deliveries published.
    pub deliveries: usize,
    /// There may be more who are due.
    pub is_full: bool,
    /// A gateway died: call the realtime port's janitor now.
    pub gateway_died: bool,
}

impl Handlers {
    /// Looks at a slice of those who are due and tells what is new. Cheap when nobody is.
    pub async fn tell_presence(&self) -> Result<Told, Unavailable> {
        match tokio::time::timeout(LIMIT, self.tell_slice()).await {
            Ok(told) => told,
            Err(_) => Err(Unavailable {
                dependency: "realtime",
                detail: "presence was not told in time".to_owned(),
                is_late: false,
            }),
        }
    }

    async fn tell_slice(&self) -> Result<Told, Unavailable> {
        let due = self.realtime().due_presence(SLICE, self.parts.clock.now()).await?;
        Gauge::PresenceDue.set(due.waiting as f64);
        let mut told = Told {
            looked: due.looks.len(),
            is_full: due.looks.len() == SLICE,
            gateway_died: due.gateway_died,
            ..Told::default()
        };
        if due.looks.is_empty() {
            return Ok(told);
        }
        (told.told, told.deliveries) = self.tell_apart(due.looks).await?;
        Ok(told)
    }

    /// Tells together of those who are looked at for the first time, and of each alone whose look was begun
    /// before and never ended: who was the reason then holds nobody else up again. An error if nobody at
    /// all could be told of; of whom else it fails, a look is due again when this one is over.
    async fn tell_apart(&self, looks: Vec<Look>) -> Result<(usize, usize), Unavailable> {
        let (again, first): (Vec<Look>, Vec<Look>) = looks.into_iter().partition(|look| look.is_unsure);
        let together = Some(first).filter(|first| !first.is_empty());
        let groups = together.into_iter().chain(again.into_iter().map(|look| vec![look]));
        let telling = stream::iter(groups).map(|group| self.tell(group)).buffer_unordered(ABREAST);
        let results: Vec<Result<(usize, usize), Unavailable>> = telling.collect().await;
        if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
            if results.iter().all(Result::is_err) {
                return Err(error.clone());
            }
            tracing::warn!(%error, "presence of some was not told; it will be");
        }
        Ok(results.iter().flatten().fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1)))
    }

    /// How those stand who are to be seen by these users, as deliveries to each user: for who may have
    /// missed a change. Of whom nothing is known, because it was wiped, nothing is said: they are told of
    /// when it is known again. One statement and a few rounds, however many users; name each once.
    pub async fn presence_for(&self, users: &[UserId]) -> Result<Vec<(UserId, OpenedDelivery)>, Unavailable> {
        let pairs = self.audience(users).await?;
        let people: HashSet<UserId> = pairs.iter().map(|(_, other)| *other).collect();
        let people: Vec<UserId> = people.into_iter().collect();
        let known = self.realtime().presence(&people, self.parts.clock.now()).await?;
        let known = known.iter().filter(|presence| presence.wish.is_some());
        let shown: HashMap<UserId, Shown> = known.map(|presence| (presence.user, presence.shown())).collect();
        let tell =
            |(user, other): (UserId, UserId)| Some((user, plan(user, changed(other, *shown.get(&other)?)).delivery));
        Ok(pairs.into_iter().filter_map(tell).collect())
    }

    /// How many users were told of, and in how many deliveries.
    async fn tell(&self, looks: Vec<Look>) -> Result<(usize, usize), Unavailable> {
        let changes: u64 = looks.iter().map(|look| look.changes).sum();
        let looks = self.with_wishes(looks).await?;
        let news = looks.iter().filter_map(|look| Some((look.presence.user, look.news()?)));
        let news: HashMap<UserId, Shown> = news.collect();
        let planned = self.plan_news(&news).await?;
        self.publish(&planned).await?;
        self.realtime().looked(&looks, self.parts.clock.now()).await?;
        Counter::PresenceTold.add(news.len() as u64);
        Counter::PresenceCoalesced.add(changes.saturating_sub(news.len() as u64));
        Ok((news.len(), planned.len()))
    }

    /// Finds in the store what those wish of whom it is not known, and lets the realtime port know.
    async fn with_wishes(&self, looks: Vec<Look>) -> Result<Vec<Look>, Unavailable> {
        let unknown = looks.iter().map(|look| look.presence).filter(|presence| presence.wish.is_none());
        let unknown: Vec<UserId> = unknown.map(|presence| presence.user).collect();
        if unknown.is_empty() {
            return Ok(looks);
        }
        let wishes = self.stored_wishes(&unknown).await?;
        let learnt: Vec<Wish> = wishes.values().copied().collect();
        self.realtime().learn_wishes(&learnt, self.parts.clock.now()).await?;
        let wishing = |look: Look| match wishes.get(&look.presence.user) {
            Some(wish) => look.wishing(wish.status),
            None => look,
        };
        Ok(looks.into_iter().map(wishing).collect())
    }

    async fn plan_news(&self, news: &HashMap<UserId, Shown>) -> Result<Vec<Planned>, Unavailable> {
        let users: Vec<UserId> = news.keys().copied().collect();
        let audience = self.audience(&users).await?;
        let listeners = self.listeners(audience.iter().map(|(_, to)| *to)).await?;
        let concerned = audience.into_iter().filter(|(_, to)| listeners.contains(to));
        Ok(concerned.filter_map(|(user, to)| Some(plan(to, changed(user, *news.get(&user)?)))).collect())
    }

    /// Whom the presence of these users concerns, as pairs of user and other: **the one place that
    /// decides who may see somebody come and go**. Members of direct rooms with the user; friends and
    /// what people choose to show belong here, too. (It goes both ways so far, and `presence_for` relies on
    /// that.)
    async fn audience(&self, users: &[UserId]) -> Result<Vec<(UserId, UserId)>, Unavailable> {
        self.store().direct_partners(users, AUDIENCE).await.map_err(|error| unavailable(&error))
    }

    /// Those of `people` who are connected anywhere.
    async fn listeners(&self, people: impl Iterator<Item = UserId>) -> Result<HashSet<UserId>, Unavailable> {
        let people: HashSet<UserId> = people.collect();
        let people: Vec<UserId> = people.into_iter().collect();
        let listening = self.realtime().listening(&people).await?;
        Ok(people.into_iter().zip(listening).filter(|(_, listens)| *listens).map(|(user, _)| user).collect())
    }
}

fn plan(to: UserId, told: protocol::wire::PresenceChanged) -> Planned {
    let delivery = OpenedDelivery::passing(EventData::PresenceChanged(told));
    Planned { channel: Channel::User(to), delivery }
}
