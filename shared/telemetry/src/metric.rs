//! Every metric, typed: its name, what it counts, and its one label if it has one.

macro_rules! metrics_enum {
    ($(#[$doc:meta])* $kind:ident { $($(#[doc = $help:literal])+ $name:ident = $text:literal $([$label:literal])?),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $kind {
            $($(#[doc = $help])+ $name,)*
        }

        impl $kind {
            /// Every metric of this kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name in `/metrics`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it counts, as shown in `/metrics` and in the documentation.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => concat!($($help),+).trim_ascii(),)* }
            }

            /// The key of its one label.
            pub const fn label(self) -> Option<&'static str> {
                match self { $(Self::$name => metrics_enum!(@label $($label)?),)* }
            }
        }
    };
    (@label) => { None };
    (@label $label:literal) => { Some($label) };
}

metrics_enum! {
    /// What only grows.
    Counter {
        /// Events accepted at the edge and confirmed by the broker, by kind.
        EventsAccepted = "chat_events_accepted_total" ["kind"],
        /// Presence and typing events dropped at the edge because the queues are long.
        EventsShed = "chat_events_shed_total",
        /// Typing that was not passed on because the same was said just before.
        TypingCoalesced = "chat_typing_coalesced_total",
        /// Read marks that only their readers' own devices were told, as the room is very large.
        ReadsSpared = "chat_reads_spared_total",
        /// Rows that were not needed any more and were removed, by what they held.
        Pruned = "chat_pruned_total" ["what"],
        /// Requests refused at the edge, by code.
        RequestsRefused = "chat_requests_refused_total" ["code"],
        /// What limits at the edge turned away or ended, by limit (`docs/PROTOCOL.md` has the table).
        Limited = "chat_limited_total" ["limit"],
        /// Events processed, by outcome (stored, duplicate, refused, retried, `dead_letter`, ephemeral).
        EventsProcessed = "chat_events_processed_total" ["outcome"],
        /// Dead letters written, by cause.
        DeadLetters = "chat_dead_letters_total" ["cause"],
        /// Deliveries published to gateways, by channel (room, user).
        DeliveriesPublished = "chat_deliveries_published_total" ["channel"],
        /// Changes of presence that were told to those they concern.
        PresenceTold = "chat_presence_told_total",
        /// Changes of presence of which nobody was told: others followed within the second, or they were
        /// undone in time, or do not show.
        PresenceCoalesced = "chat_presence_coalesced_total",
        /// Deliveries that gateways put into outboxes of sessions.
        DeliveriesQueued = "chat_deliveries_queued_total",
        /// Typing and presence that gateways dropped because a client read slowly.
        DeliveriesDropped = "chat_deliveries_dropped_total",
        /// Deliveries from pub/sub that were not genuine.
        DeliveriesForged = "chat_deliveries_forged_total",
        /// Gaps in a room's deliveries that a gateway filled, by source (log, store).
        GapsFilled = "chat_gaps_filled_total" ["source"],
        /// Rooms whose events somebody caught up with by `rev`, by source (log, store).
        RoomsSynced = "chat_rooms_synced_total" ["source"],
        /// Sockets opened, by transport.
        SocketsOpened = "chat_sockets_opened_total" ["transport"],
        /// Socket.IO connections that came back, by what became of their recovery.
        Recoveries = "chat_recoveries_total" ["outcome"],
        /// Sockets closed by the server, by reason.
        SocketsClosed = "chat_sockets_closed_total" ["reason"],
        /// Rooms that connections were made to leave or to follow because the word of it was lost, by
        /// change (left, joined).
        RoomsReconciled = "chat_rooms_reconciled_total" ["change"],
        /// Rooms found in the tail of the store that had moved without a word.
        TailFound = "chat_tail_found_total",
        /// Looks into the store for changed rights and rooms that failed.
        ChangeLooksFailed = "chat_change_looks_failed_total",
        /// `rooms.beacon`s sent to quiet connections.
        BeaconsSent = "chat_beacons_sent_total",
        /// Connections to a dependency that were lost, by dependency.
        ConnectionsLost = "chat_connections_lost_total" ["dependency"],
        /// Times that a process was too slow to take its deliveries, dropped them and resynchronised.
        InboxOverflows = "chat_inbox_overflows_total",
        /// Background tasks that failed and were started again, by name.
        TasksRestarted = "chat_tasks_restarted_total" ["task"],
        /// HTTP requests answered, by status class.
        HttpRequests = "chat_http_requests_total" ["status"],
    }
}

metrics_enum! {
    /// What rises and falls.
    Gauge {
        /// Open sockets, by transport.
        Sockets = "chat_sockets" ["transport"],
        /// Socket.IO sessions that poll at the moment; the others have a WebSocket.
        SocketsPolling = "chat_sockets_polling",
        /// Long polls that are open.
        Polls = "chat_polls",
        /// Users whose presence is to be looked at, those included who left within the grace.
        PresenceDue = "chat_presence_due",
        /// Sessions that are being opened at the moment.
        Openings = "chat_openings",
        /// Clients that wait for their session to be opened.
        OpeningsWaiting = "chat_openings_waiting",
        /// Rooms with at least one member on this gateway.
        LocalRooms = "chat_local_rooms",
        /// Users here whose rooms are being compared with the store.
        DoubtfulUsers = "chat_doubtful_users",
        /// Bytes waiting in outboxes of sessions.
        OutboxBytes = "chat_outbox_bytes",
        /// Deliveries that waited in this process when it last took some (at most 65,536).
        InboxWaiting = "chat_inbox_waiting",
        /// Events published and not yet confirmed.
        ConfirmsOutstanding = "chat_confirms_outstanding",
        /// Events ready in the broker, by class.
        QueueDepth = "chat_queue_depth" ["class"],
        /// 1 while new events of a class are refused because too many wait (of class low: shed), by class.
        Overloaded = "chat_overloaded" ["class"],
        /// Shards this processor owns.
        ShardsOwned = "chat_shards_owned",
        /// 1 while a dependency answers, else 0, by dependency.
        DependencyUp = "chat_dependency_up" ["dependency"],
    }
}

metrics_enum! {
    /// How long or how much, as a distribution; times in seconds.
    Histogram {
        /// From publish to the broker's confirm.
        ConfirmSeconds = "chat_confirm_seconds",
        /// From acceptance at the edge to the commit in the store, by the two clocks.
        AcceptedToStoredSeconds = "chat_accepted_to_stored_seconds",
        /// One batch through the store.
        BatchSeconds = "chat_batch_seconds",
        /// Events in one batch.
        BatchEvents = "chat_batch_events",
        /// One HTTP request, by route.
        HttpSeconds = "chat_http_seconds" ["route"],
    }
}

impl Counter {
    /// One more.
    pub fn inc(self) {
        metrics::counter!(self.name()).increment(1);
    }

    /// That many more.
    pub fn add(self, count: u64) {
        metrics::counter!(self.name()).increment(count);
    }

    /// One more under that label value.
    pub fn inc_with(self, value: &'static str) {
        self.add_with(value, 1);
    }

    /// That many more under that label value.
    pub fn add_with(self, value: &'static str, count: u64) {
        metrics::counter!(self.name(), self.label().unwrap_or("label") => value).increment(count);
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(self, value: f64) {
        metrics::gauge!(self.name()).set(value);
    }

    /// Adds to the value; negative to take away.
    pub fn add(self, by: f64) {
        metrics::gauge!(self.name()).increment(by);
    }

    /// Sets the value under that label value.
    pub fn set_with(self, value: &'static str, to: f64) {
        metrics::gauge!(self.name(), self.label().unwrap_or("label") => value).set(to);
    }

    /// Adds to the value under that label value.
    pub fn add_with(self, value: &'static str, by: f64) {
        metrics::gauge!(self.name(), self.label().unwrap_or("label") => value).increment(by);
    }
}

impl Histogram {
    /// Records one value.
    pub fn record(self, value: f64) {
        metrics::histogram!(self.name()).record(value);
    }

    /// Records one value under that label value.
    pub fn record_with(self, label: &'static str, value: f64) {
        metrics::histogram!(self.name(), self.label().unwrap_or("label") => label).record(value);
    }

    /// Records one value under a label value that was made at run time, from a closed set none the
    /// less (routes, not paths).
    pub fn record_for(self, label: String, value: f64) {
        metrics::histogram!(self.name(), self.label().unwrap_or("label") => label).record(value);
    }

    /// The upper bounds of its buckets: seconds from 0.5 ms to 30 s, or counts to a thousand.
    pub fn buckets(self) -> &'static [f64] {
        const SECONDS: &[f64] =
            &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
        if self.name().ends_with("_seconds") { SECONDS } else { COUNTS }
    }
}

/// Tells the installed recorder what every metric means.
pub fn describe_all() {
    for metric in Counter::ALL {
        metrics::describe_counter!(metric.name(), metric.help());
    }
    for metric in Gauge::ALL {
        metrics::describe_gauge!(metric.name(), metric.help());
    }
    for metric in Histogram::ALL {
        metrics::describe_histogram!(metric.name(), metric.help());
    }
}

/// Lets what only grows begin at 0 where it is one series: alerts on an increase need the zero that it
/// begins with, and what is not there cannot be told from what has another name.
pub fn begin_all() {
    for metric in Counter::ALL.iter().filter(|metric| metric.label().is_none()) {
        metric.add(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_carry_their_unit() {
        let mut names: Vec<&str> = Counter::ALL.iter().map(|m| m.name()).collect();
        assert!(names.iter().all(|name| name.starts_with("chat_") && name.ends_with("_total")));
        names.extend(Gauge::ALL.iter().map(|m| m.name()));
        names.extend(Histogram::ALL.iter().map(|m| m.name()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
