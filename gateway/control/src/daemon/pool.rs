//! The threads that do Diffie-Hellman: as many as there are cores, behind the rest of the machine's work.
//!
//! What tunnels want that are known goes first: a flood of strangers delays strangers. Their queue needs no bound of its
//! own: a half-open IKE SA has one job at a time, and the endpoint bounds those.

use adit_ike::{Job, JobResult};
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
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
        let shared = Arc::new(Shared { queues: Mutex::new(queues), ready: Condvar::new() });
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
    fn lock(&self) -> MutexGuard<'_, Queues<Job>> {
        // The queues are whole between any two statements.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(shared: &Shared, done: impl Fn(JobResult) -> bool) {
    if let Err(e) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("a thread for Diffie-Hellman keeps its priority: {e}");
    }
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
    use std::{sync::mpsc, time::Instant};

    #[test]
    fn strangers_wait_for_all_who_are_known() {
        let mut queues =
            Queues { known: VecDeque::from([1, 2]), strangers: VecDeque::from([9]), closed: false };
        assert_eq!(queues.next(), Some(1));
        queues.known.push_back(3);
        let rest: Vec<_> = std::iter::from_fn(|| queues.next()).collect();
        assert_eq!(rest, [2, 3, 9]);
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
