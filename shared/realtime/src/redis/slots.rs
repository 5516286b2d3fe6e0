//! The slots of a cluster: where a key lies, and which node has it.
//!
//! The rule is the Redis Cluster specification's ("Key distribution model", "Hash tags"). The invariant: a
//! map never changes; a new one takes its place.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// Where a key lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) u16);

impl Slot {
    pub(super) const FIRST: Self = Self(0);
    pub(super) const LAST: Self = Self(SLOTS - 1);

    /// Of a key or a channel: by what stands in its first braces, if anything does.
    pub(super) fn of(key: &str) -> Self {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
        Self(hashed.bytes().fold(0, step) % SLOTS)
    }

    /// The smallest number that, in braces, lies in this slot.
    pub(super) fn tag(self) -> String {
        // Numbers spread like anything else: after some ten times as many as there are slots each has one.
        let mut numbers = (0_u32..).map(|number| number.to_string());
        numbers.find(|tag| Self::of(tag) == self).unwrap_or_default()
    }
}

/// CRC-16/XMODEM, one byte more.
fn step(crc: u16, byte: u8) -> u16 {
    let mut crc = crc ^ (u16::from(byte) << 8);
    for _ in 0..8 {
        crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
    }
    crc
}

/// The slots from one to another, both included, and the node that has them.
#[derive(Clone)]
pub(super) struct Range {
    pub(super) first: Slot,
    pub(super) last: Slot,
    pub(super) node: Arc<Node>,
}

/// Which node has which slots.
#[derive(Default)]
pub(super) struct Map {
    /// Ascending.
    ranges: Vec<Range>,
    /// The nodes by name, each with a tag that lies in the first of its slots.
    nodes: HashMap<String, (Arc<Node>, String)>,
}

impl Map {
    pub(super) fn new(mut ranges: Vec<Range>) -> Self {
        ranges.sort_by_key(|range| range.first);
        let mut nodes = HashMap::new();
        for range in &ranges {
            nodes.entry(range.node.name().to_owned()).or_insert_with(|| (Arc::clone(&range.node), range.first.tag()));
        }
        Self { ranges, nodes }
    }

    /// Who has a slot; `None` while nobody does.
    pub(super) fn owner(&self, slot: Slot) -> Option<&Arc<Node>> {
        let range = &self.ranges[self.ranges.partition_point(|range| range.last < slot)..].first()?;
        (range.first <= slot).then_some(&range.node)
    }

    /// All masters that have slots.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values().map(|(node, _)| node)
    }

    /// A master by name.
    pub(super) fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name).map(|(node, _)| node)
    }

    /// A tag that lies on that node.
    pub(super) fn tag_on(&self, node: &Node) -> Option<&str> {
        self.nodes.get(node.name()).map(|(_, tag)| tag.as_str())
    }

    /// Whether both say the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let said = |map: &Self| -> Vec<(Slot, Slot, String)> {
            map.ranges.iter().map(|range| (range.first, range.last, range.node.name().to_owned())).collect()
        };
        said(self) == said(other)
    }
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo as _;

    use super::*;

    #[test]
    fn keys_lie_where_the_specification_says() {
        assert_eq!(Slot::of("123456789"), Slot(0x31C3));
        assert_eq!(Slot::of("foo{}{bar}"), Slot("foo{}{bar}".bytes().fold(0, step) % SLOTS));
        assert_eq!(Slot::of("foo{{bar}}zap"), Slot::of("{bar"));
        assert_eq!(Slot::of("foo{bar}{zap}"), Slot::of("bar"));
        assert_eq!(Slot::of("a{room}"), Slot::of("b{room}c"));
    }

    #[test]
    fn every_slot_has_a_tag() {
        for slot in [Slot(0), Slot(5461), Slot(SLOTS - 1)] {
            assert_eq!(Slot::of(&format!("x{{{}}}", slot.tag())), slot);
        }
    }

    #[test]
    fn a_map_knows_who_has_a_slot_and_where_nobody_does() {
        let node = |port: u16| {
            let info = format!("redis://localhost:{port}").into_connection_info().expect("an address");
            Arc::new(Node::new(info).expect("a node"))
        };
        let range = |first, last, node: &Arc<Node>| Range { first: Slot(first), last: Slot(last), node: node.clone() };
        let (one, other) = (node(1), node(2));
        let map = Map::new(vec![range(100, 200, &other), range(0, 9, &one), range(201, 16_383, &one)]);
        let owner = |slot| map.owner(Slot(slot)).map(|node| node.name().to_owned());
        assert_eq!(owner(0).as_deref(), Some("localhost:1"));
        assert_eq!(owner(10), None);
        assert_eq!(owner(200).as_deref(), Some("localhost:2"));
        assert_eq!(owner(16_383).as_deref(), Some("localhost:1"));
        assert_eq!(map.nodes().count(), 2);
        assert_eq!(map.tag_on(&other).map(|tag| Slot::of(&format!("{{{tag}}}"))), Some(Slot(100)));
        assert!(!map.is_like(&Map::new(vec![range(0, 16_383, &one)])) && map.is_like(&Map::new(map.ranges.clone())));
    }
}
