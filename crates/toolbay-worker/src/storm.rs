//! Back-off for tenants whose workers end again and again.

use std::time::{Duration, Instant};

/// Ends in a row that cost nothing.
const FREE: u32 = 4;
/// The first delay; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(10);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(5);
/// How long without an end until all is forgotten.
const CALM: Duration = Duration::from_secs(10);

/// The recent abnormal ends of one tenant's workers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Storm {
    ends: u32,
    last: Option<Instant>,
}

impl Storm {
    /// Counts one abnormal end.
    pub(crate) fn count(&mut self, now: Instant) {
        if self.is_over(now) {
            self.ends = 0;
        }
        self.ends = self.ends.saturating_add(1);
        self.last = Some(now);
    }

    /// Ends in a row.
    pub(crate) fn ends(&self) -> u32 {
        self.ends
    }

    /// When the next worker may be started.
    pub(crate) fn until(&self) -> Option<Instant> {
        let doublings = self.ends.checked_sub(FREE + 1)?;
        let delay = FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST);
        self.last.map(|last| last + delay)
    }

    /// Whether it can be forgotten.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.duration_since(last) > CALM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_after_a_few_free_ends_and_stays_bounded() {
        let start = Instant::now();
        let mut storm = Storm::default();
        let delays: Vec<_> = (0..40)
            .map(|_| {
                storm.count(start);
                storm.until().map(|until| until - start)
            })
            .collect();
        assert!(delays[..4].iter().all(Option::is_none));
        assert_eq!(delays[4], Some(FIRST));
        assert_eq!(delays[5], Some(FIRST * 2));
        assert_eq!(delays[39], Some(LONGEST));
    }

    #[test]
    fn calm_ends_a_storm() {
        let start = Instant::now();
        let mut storm = Storm::default();
        (0..9).for_each(|_| storm.count(start));
        storm.count(start + CALM + Duration::from_secs(1));
        assert_eq!((storm.ends(), storm.until()), (1, None));
    }
}
