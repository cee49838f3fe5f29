//! Generations of the registry: which runs may still see what was taken out of it.
//!
//! A run keeps the tools that it began with, so a plugin that was taken out can be stopped only when the last run that
//! began before has ended. Each run holds the generation of its beginning, and each generation the next one: when the one
//! from before a change is dropped, so are all that were before it, and nobody sees any more what the change took out.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// One generation. Held by its runs and by the generation before it.
#[derive(Debug, Default)]
pub(crate) struct Generation(Mutex<Ended>);

#[derive(Debug, Default)]
struct Ended {
    next: Option<Arc<Generation>>,
    /// Dropped with the generation, which whoever waits at the other end sees.
    told: Vec<oneshot::Sender<()>>,
}

impl Generation {
    /// The generation after this one, and what resolves, with an error, when this one and all before it are gone.
    pub(crate) fn succeed(&self) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (next, (sender, gone)) = (Arc::new(Self::default()), oneshot::channel());
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.next = Some(Arc::clone(&next));
        ended.told.push(sender);
        (next, gone)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // A chain that is let go whole would be dropped by as many nested calls as it has links.
        let mut next = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).next.take();
        while let Some(mut generation) = next.and_then(Arc::into_inner) {
            next = generation.0.get_mut().unwrap_or_else(PoisonError::into_inner).next.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_is_free_when_the_last_run_from_before_has_ended() {
        let first = Arc::new(Generation::default());
        let (second, mut first_gone) = first.succeed();
        let (third, mut second_gone) = second.succeed();
        drop(second);
        // Of the second nobody has a run, yet one of the first may see what the second had.
        assert_eq!(second_gone.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(first);
        assert_eq!(first_gone.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(second_gone.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        drop(third);
    }

    #[test]
    fn a_long_chain_is_let_go_without_a_deep_stack() {
        let first = Arc::new(Generation::default());
        let mut last = Arc::clone(&first);
        for _ in 0..200_000 {
            last = last.succeed().0;
        }
        drop(first);
    }
}
