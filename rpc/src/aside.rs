//! Threads on which large answers are read and written, apart from those that serve everyone.
//!
//! There are as many as there may be such calls at work. The node lowers their priority
//! ([`Options::large_thread`](crate::http::Options)): with few processors a thread that is busy for a tenth
//! of a second would otherwise take its turns from those that answer small calls.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::Error;

type Job = Box<dyn FnOnce() + Send>;

/// The threads; they end when this is dropped.
pub(crate) struct Aside {
    jobs: Sender<Job>,
}

impl Aside {
    /// Starts `threads` of them, each of which calls `begin` first.
    pub(crate) fn new(threads: usize, begin: fn()) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            let work = move || {
                begin();
                work_off(&queue);
            };
            thread::Builder::new()
                .name("rpc-large".into())
                .spawn(work)?;
        }
        Ok(Self { jobs })
    }

    /// Runs `job` to its end, also when nobody waits for it any longer.
    ///
    /// # Errors
    /// When it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, done) = oneshot::channel();
        let job = move || {
            if let Ok(result) = catch_unwind(AssertUnwindSafe(job)) {
                // An error means that nobody waits.
                drop(sender.send(result));
            }
        };
        let ended = || Error::internal("making a large answer panicked");
        self.jobs.send(Box::new(job)).map_err(|_| ended())?;
        done.await.map_err(|_| ended())
    }

    /// Runs a future to its end, which may block.
    ///
    /// # Errors
    /// When it panicked.
    pub(crate) async fn run_future<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let runtime = Handle::current();
        self.run(move || runtime.block_on(future)).await
    }
}

fn work_off(queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::Aside;

    #[tokio::test]
    async fn jobs_run_on_a_thread_of_their_own_which_outlives_a_panic() {
        let aside = Aside::new(1, || ()).expect("a thread");
        let name = || thread::current().name().map(str::to_owned);
        let named = Some("rpc-large".to_owned());
        assert_eq!(aside.run(name).await.ok(), Some(named.clone()));
        assert!(aside.run(|| panic!("on purpose")).await.is_err());
        assert_eq!(
            aside.run_future(async move { name() }).await.ok(),
            Some(named)
        );
    }
}
