//! The thread of a Raft group.

use super::executor::{Executor, JoinHandle};
use super::group::GroupError;
use super::types::MemberId;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Dropped with the group: everything spawned on it ends.
pub(super) struct Thread {
    executor: Arc<Executor>,
    running: Mutex<Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>>,
}

impl Thread {
    /// Those who will call are in the runtime in which this is called.
    pub(super) fn start(id: MemberId) -> Result<Self, GroupError> {
        let failed = |e: io::Error| GroupError::Thread(Arc::new(e));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let executor = Executor::new(runtime.handle().clone());
        let callers = Handle::current();
        let (stop, stopped) = oneshot::channel::<()>();
        let closing = Closing(executor.clone());
        let join = std::thread::Builder::new()
            .name(format!("raft-{id}"))
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        // Either the signal or its sender's end.
                        _ = stopped => {}
                        () = closing.0.run() => {}
                        () = closing.0.watch(&callers) => {}
                    }
                });
                drop(closing);
                runtime.shutdown_timeout(Duration::from_secs(5));
            })
            .map_err(failed)?;
        Ok(Self { executor, running: Mutex::new(Some((stop, join))) })
    }

    /// Runs a task of the group.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.executor.spawn(future)
    }

    /// See [`Executor::run_here`]. What it leaves is for the same thread, when what calls this has had its turn.
    pub(super) fn run_here(&self, begin: impl FnOnce()) {
        if let Some(rest) = self.executor.run_here(begin)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { rest.run() });
        }
    }

    /// See [`Executor::brought`].
    pub(super) fn brought(&self) {
        self.executor.brought();
    }

    /// Ends it, and waits for that.
    pub(super) fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, join)) = running {
            drop(stop);
            // Dropped by one of its own tasks (by a completion), or by what else runs on it, it cannot wait for itself.
            let is_here = self.executor.is_here() || join.thread().id() == std::thread::current().id();
            if !is_here && join.join().is_err() {
                tracing::error!("the Raft group's thread panicked");
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Nobody waits for tasks of a thread that has ended, in whatever way.
struct Closing(Arc<Executor>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}
