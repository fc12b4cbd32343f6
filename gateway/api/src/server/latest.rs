//! One status for all who scrape at the same time: it is gathered for one of them, whoever comes meanwhile.

use std::{
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::Mutex;

/// What was gathered last, for as long as somebody has it.
pub(crate) struct Latest<T> {
    /// How often it was begun.
    begun: AtomicU64,
    /// Which one that was.
    last: Mutex<(u64, Weak<T>)>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Latest { begun: AtomicU64::new(0), last: Mutex::new((0, Weak::new())) }
    }
}

impl<T> Latest<T> {
    /// What `gather` gives, or gave to somebody else, if that began after this was asked for. One gathers at a time: however
    /// many ask, each waits for two at most.
    ///
    /// # Errors
    /// What `gather` fails with.
    pub(crate) async fn get<E, F>(&self, gather: impl FnOnce() -> F) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let asked = self.begun.load(Relaxed);
        let mut last = self.last.lock().await;
        if let Some(found) = last.1.upgrade().filter(|_| last.0 > asked) {
            return Ok(found);
        }
        let number = self.begun.fetch_add(1, Relaxed) + 1;
        let gathered = Arc::new(gather().await?);
        *last = (number, Arc::downgrade(&gathered));
        Ok(gathered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::convert::Infallible;

    #[tokio::test]
    async fn a_crowd_makes_it_gather_twice_and_nobody_has_what_is_older_than_the_question() {
        let (latest, gathered) = (Latest::default(), AtomicU64::new(0));
        let ask = || {
            latest.get(|| async {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(gathered.fetch_add(1, Relaxed))
            })
        };
        let all = join_all((0..16).map(|_| ask())).await;
        let all: Vec<u64> = all.into_iter().map(|found| *found.unwrap()).collect();
        assert_eq!((all[0], gathered.load(Relaxed)), (0, 2));
        assert!(all[1..].iter().all(|which| *which == 1), "{all:?}");
        assert_eq!(*ask().await.unwrap(), 2, "it is anew for who comes later");
    }

    #[tokio::test]
    async fn who_fails_leaves_the_next_to_try() {
        let latest = Latest::default();
        assert_eq!(latest.get(|| async { Err::<u8, _>("no") }).await, Err("no"));
        assert_eq!(latest.get(|| async { Ok::<_, Infallible>(7u8) }).await.map(|seven| *seven), Ok(7));
    }
}
