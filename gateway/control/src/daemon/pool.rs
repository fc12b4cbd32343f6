//! The threads that do Diffie-Hellman: as many as there are cores, behind the rest of the machine's work.
//!
//! What tunnels want that are known goes first: a flood of strangers delays strangers. Their queue needs no bound of its
//! own: a half-open IKE SA has one job at a time, and the endpoint bounds those.

use adit_ike::{Job, JobResult};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// How much the threads yield to others.
const NICE: i32 = 5;

/// The threads and their queues. Dropped, they end after what they are at.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    queues: Mutex<Queues<Job>>,
    ready: Condvar,
    /// Whether it was said that the threads do not yield to others.
    said: AtomicBool,
}

struct Queues<T> {
    known: VecDeque<T>,
    strangers: VecDeque<T>,
    closed: bool,
}

impl<T> Queues<T> {
    fn next(&mut self) -> Option<T> {
        self.known.pop_front().or_else(|| self.strangers.pop_front())
    }
}

impl Pool {
    /// Starts the threads; each gives what its jobs come to to `done`, until that says that nobody listens.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(done: impl Fn(JobResult) -> bool + Clone + Send + 'static) -> std::io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let queues = Queues { known: VecDeque::new(), strangers: VecDeque::new(), closed: false };
        let (queues, ready) = (Mutex::new(queues), Condvar::new());
        let shared = Arc::new(Shared { queues, ready, said: AtomicBool::new(false) });
        let pool = Pool { shared, threads };
        for number in 0..threads {
            let (shared, done) = (pool.shared.clone(), done.clone());
            thread::Builder::new().name(format!("adit-dh-{number}")).spawn(move || work(&shared, done))?;
        }
        Ok(pool)
    }

    /// Adds a job; a stranger's waits until there is no other.
    pub(super) fn submit(&self, job: Job, stranger: bool) {
        let mut queues = self.shared.lock();
        match stranger {
            true => queues.strangers.push_back(job),
            false => queues.known.push_back(job),
        }
        drop(queues);
        self.shared.ready.notify_one();
    }

    /// Whether there is work enough: a negotiation that is ours to begin had better wait.
    pub(super) fn is_busy(&self) -> bool {
        self.shared.lock().known.len() >= 32 * self.threads
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_all();
    }
}

impl Shared {
    /// Says once for all threads where one cannot yield: then Diffie-Hellman competes with the data plane.
    fn yields(&self, yields: rustix::io::Result<()>) {
        if let Err(e) = yields
            && !self.said.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("the threads for Diffie-Hellman do not yield to the rest of the machine: {e}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues<Job>> {
        // The queues are whole between any two statements.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(shared: &Shared, done: impl Fn(JobResult) -> bool) {
    shared.yields(rustix::process::setpriority_process(None, NICE));
    loop {
        let mut queues = shared.lock();
        let job = loop {
            if queues.closed {
                return;
            }
            match queues.next() {
                Some(job) => break job,
                None => queues = shared.ready.wait(queues).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(queues);
        if !done(job.run()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_ike::{Endpoint, EndpointConfig};
    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use std::{
        sync::{atomic::AtomicUsize, mpsc},
        time::Instant,
    };
    use tracing::{
        Level, Metadata, Subscriber,
        span::{Attributes, Id, Record},
    };

    #[test]
    fn strangers_wait_for_all_who_are_known() {
        let mut queues =
            Queues { known: VecDeque::from([1, 2]), strangers: VecDeque::from([9]), closed: false };
        assert_eq!(queues.next(), Some(1));
        queues.known.push_back(3);
        let rest: Vec<_> = std::iter::from_fn(|| queues.next()).collect();
        assert_eq!(rest, [2, 3, 9]);
    }

    /// Counts what is warned of.
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= Level::WARN
        }
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn threads_that_do_not_yield_are_warned_of_once() {
        let warned = Arc::new(AtomicUsize::new(0));
        let pool = Pool::start(|_| true).unwrap();
        tracing::subscriber::with_default(Warnings(warned.clone()), || {
            pool.shared.said.store(false, Ordering::Relaxed);
            pool.shared.yields(Ok(()));
            assert_eq!(warned.load(Ordering::Relaxed), 0);
            (0..3).for_each(|_| pool.shared.yields(Err(rustix::io::Errno::PERM)));
        });
        assert_eq!(warned.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn every_job_is_done_and_the_threads_end() {
        let text = include_str!("../config/tests/good.toml");
        let config = crate::config::Config::parse(std::path::Path::new("t"), text).unwrap();
        let mut endpoint = Endpoint::new(EndpointConfig::default(), Box::new(UnwrapErr(SysRng)));
        let (now, peer) = (Instant::now(), [198, 51, 100, 1].into());
        for id in 0..20 {
            let id = adit_ike::TunnelId(id);
            let tunnel = crate::tunnel::Tunnel::new(id, config.tunnels[0].clone(), Default::default());
            endpoint.set_tunnel(now, tunnel.ike_config());
            endpoint.connect(now, id, peer);
        }
        let (sender, results) = mpsc::channel();
        let pool = Pool::start(move |result| sender.send(result).is_ok()).unwrap();
        while let Some(job) = endpoint.poll_job() {
            assert!(!endpoint.is_strangers(&job));
            pool.submit(job, false);
        }
        for _ in 0..20 {
            endpoint.handle_job(now, results.recv().unwrap());
        }
        assert!(!pool.is_busy() && endpoint.poll_transmit().is_some());
        drop(pool);
        // The last thread that ends takes the last sender with it.
        assert!(results.recv().is_err());
    }
}
