//! The background tasks of one agent: started in one place, ended together.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of one agent. Clones are the same tasks.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
}

impl Tasks {
    /// Runs `work` beside the others until it is done or all are ended. Who waits
    /// for it to end finds all that it held let go of.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let end = self.end.clone();
        let work = async move {
            end.run_until_cancelled_owned(work).await;
        };
        self.tracker.spawn(work)
    }

    /// Drops all of them where they wait, and those that are spawned from now
    /// on at once. Returns when none is left.
    pub async fn end(&self) {
        self.end.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn all_tasks_end_together_and_let_go_of_what_they_hold() {
        let tasks = Tasks::default();
        let held = Arc::new(());
        for _ in 0..3 {
            let held = held.clone();
            tasks.spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
        }
        assert_eq!(Arc::strong_count(&held), 4);
        tasks.end().await;
        assert_eq!(Arc::strong_count(&held), 1);
        let late = held.clone();
        tasks.spawn(async move {
            let _late = late;
            std::future::pending::<()>().await;
        });
        tasks.end().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
