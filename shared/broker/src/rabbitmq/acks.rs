//! Which deliveries of a channel to ack how.
//!
//! Pure. The invariant: `multiple` is used only when it covers nothing but what was settled.

/// How to ack `tags` of a channel on which all up to `acked` are acked: each with whether it means
/// all before it too.
pub(super) fn acks(acked: &mut u64, mut tags: Vec<u64>) -> Vec<(u64, bool)> {
    tags.sort_unstable();
    let mut gaps = Vec::new();
    let mut upto = None;
    for tag in tags {
        if tag == *acked + 1 {
            *acked = tag;
            upto = Some((tag, true));
        } else {
            gaps.push((tag, false));
        }
    }
    upto.into_iter().chain(gaps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_batch_is_acked_at_once() {
        let mut acked = 0;
        assert_eq!(acks(&mut acked, vec![2, 1, 3]), [(3, true)]);
        assert_eq!(acks(&mut acked, vec![]), []);
        assert_eq!(acks(&mut acked, vec![4]), [(4, true)]);
    }

    #[test]
    fn what_is_not_settled_is_never_covered() {
        let mut acked = 0;
        assert_eq!(acks(&mut acked, vec![1, 2, 4, 5]), [(2, true), (4, false), (5, false)]);
        // 3 was never received here: everything after it is acked one by one.
        assert_eq!(acks(&mut acked, vec![6]), [(6, false)]);
        assert_eq!(acked, 2);
    }
}
