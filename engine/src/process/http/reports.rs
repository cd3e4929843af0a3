//! Asks the cores of a node for their report, once at a time, and for a second at most.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::env::foreign::ForeignSender;
use crate::server::node::OperatorCommand;
use crate::server::status::report::StatsReport;

/// Cores that have not answered after so long are taken for hung.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoReport {
    /// The node does not serve yet.
    Starting,
    /// Not all cores have answered in time.
    Hung,
    /// The node has ended.
    Ended,
}

impl NoReport {
    pub(super) fn sentence(self) -> &'static str {
        match self {
            NoReport::Starting => "the node is starting: it checks its logs and replays them",
            NoReport::Hung => "not all cores have answered within 1 s",
            NoReport::Ended => "the node has ended",
        }
    }
}

type Answer = watch::Receiver<Option<Arc<StatsReport>>>;

/// The way to the cores.
#[derive(Default)]
pub(super) struct Reports {
    commands: OnceLock<ForeignSender<OperatorCommand>>,
    /// The question that was asked last.
    last: Mutex<Option<Answer>>,
}

impl Reports {
    pub(super) fn node_serves(&self, commands: ForeignSender<OperatorCommand>) {
        let first = self.commands.set(commands).is_ok();
        assert!(first, "a node starts to serve once");
    }

    /// The node's report; of a question that is under way already, if there is one.
    ///
    /// Whoever joins such a question may be told what was so before it asked, by no more than the cores take to answer.
    pub(super) async fn ask(&self) -> Result<Arc<StatsReport>, NoReport> {
        let mut answer = self.question()?;
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, answer.wait_for(Option::is_some)).await;
        match answered {
            Ok(Ok(report)) => Ok(Arc::clone(report.as_ref().expect("waited for"))),
            Ok(Err(_)) => Err(NoReport::Ended),
            Err(_) => Err(NoReport::Hung),
        }
    }

    fn question(&self) -> Result<Answer, NoReport> {
        let commands = self.commands.get().ok_or(NoReport::Starting)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = &*last
            && answer.has_changed().is_ok()
            && answer.borrow().is_none()
        {
            return Ok(answer.clone());
        }
        let (sender, answer) = watch::channel(None);
        let command = OperatorCommand::Report(Box::new(move |report| {
            // Nobody may wait any more.
            let _ = sender.send(Some(Arc::new(report)));
        }));
        commands.send(command).map_err(|_| NoReport::Ended)?;
        *last = Some(answer.clone());
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::foreign::{ForeignReceiver, channel};
    use crate::process::http::metrics::tests::two_cores;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.expect("a runtime without IO").block_on(future)
    }

    async fn answer(commands: &mut ForeignReceiver<OperatorCommand>) {
        let OperatorCommand::Report(tell) = commands.recv().await else {
            panic!("only reports are asked for");
        };
        tell(two_cores());
    }

    #[test]
    fn a_node_that_starts_or_has_ended_has_no_report() {
        run(async {
            let reports = Reports::default();
            assert_eq!(reports.ask().await.err(), Some(NoReport::Starting));
            let (sender, mut receiver) = channel();
            reports.node_serves(sender);
            let (asked, ()) = tokio::join!(reports.ask(), answer(&mut receiver));
            assert_eq!(asked.expect("it was answered").boot, 4);
            let drop_one = async { drop(receiver.recv().await) };
            let (asked, ()) = tokio::join!(reports.ask(), drop_one);
            assert_eq!(asked.err(), Some(NoReport::Ended), "the question was dropped");
            drop(receiver);
            assert_eq!(reports.ask().await.err(), Some(NoReport::Ended));
        });
    }

    #[test]
    fn a_hung_node_is_asked_once_and_given_up_after_a_second() {
        run(async {
            let reports = Reports::default();
            let (sender, mut receiver) = channel();
            reports.node_serves(sender);
            let begun = tokio::time::Instant::now();
            let (one, other) = tokio::join!(reports.ask(), reports.ask());
            assert_eq!(
                (one.err(), other.err()),
                (Some(NoReport::Hung), Some(NoReport::Hung))
            );
            assert_eq!(begun.elapsed(), ANSWER_TIMEOUT);
            let (late, ()) = tokio::join!(reports.ask(), answer(&mut receiver));
            assert!(
                late.is_ok(),
                "an answer that is late is taken by whoever asks next"
            );
            let (next, ()) = tokio::join!(reports.ask(), answer(&mut receiver));
            assert!(next.is_ok(), "and after that the node is asked anew");
        });
    }
}
