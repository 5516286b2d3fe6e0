//! Which shard of a class of queues a room belongs to.
//!
//! Publishers and processors of every version must agree, so the hash is fixed: FNV-1a over the
//! sixteen bytes of the id (<http://www.isthe.com/chongo/tech/comp/fnv/>), finished with
//! `MurmurHash3`'s 64-bit mixer so that ids that differ only in their time bits spread evenly.

use uuid::Uuid;

/// The shard, 0 to `shards - 1`, of a room's (or, for a user's own events, a user's) id.
pub fn shard_of(key: Uuid, shards: u16) -> u16 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key.as_bytes() {
        hash ^= u64::from(*byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    (hash % u64::from(shards.max(1))) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_keeps_its_shard_between_versions() {
        let shards: Vec<u16> = (0..8).map(|n| shard_of(Uuid::from_u128(n), 4)).collect();
        assert_eq!(shards, [2, 0, 0, 0, 2, 1, 0, 0]);
    }

    #[test]
    fn rooms_spread_evenly() {
        let mut counts = [0u32; 4];
        for n in 0..10_000u128 {
            counts[usize::from(shard_of(Uuid::from_u128(n << 64 | 0x8000), 4))] += 1;
        }
        assert!(counts.iter().all(|count| (2_300..2_700).contains(count)), "{counts:?}");
    }
}
