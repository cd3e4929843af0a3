//! A smaller plan that fails in the same way: fewer faults, then fewer clients and threads, then fewer operations.
//!
//! Greedy, in the manner of delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing
//! input", 2002): parts are left out, halves first, and a smaller plan is kept if its run violates the same
//! check. The streams of the world are independent of each other, so what is left mostly behaves as before.

use super::plan::Plan;
use super::run::{Report, run};

/// What came of shrinking.
pub struct Shrunk {
    /// The smallest plan found.
    pub plan: Plan,
    /// Its run.
    pub report: Report,
    /// Runs that were tried.
    pub runs: u32,
}

struct Shrinker<'a> {
    check: String,
    best: Plan,
    report: Report,
    runs: u32,
    runs_max: u32,
    progress: &'a mut dyn FnMut(&Plan, u32),
}

/// Shrinks a plan whose run failed as `report` says, with at most `runs_max` runs. `progress` hears of the best
/// plan so far.
///
/// # Panics
/// When the report has no failure.
pub fn shrink(plan: &Plan, report: Report, runs_max: u32, progress: &mut dyn FnMut(&Plan, u32)) -> Shrunk {
    let failure = report.failure.as_ref().expect("only a failure can be shrunk");
    let mut shrinker = Shrinker {
        check: failure.check.clone(),
        best: plan.clone(),
        report,
        runs: 0,
        runs_max,
        progress,
    };
    loop {
        let before = size(&shrinker.best);
        shrinker.faults();
        shrinker.clients();
        shrinker.threads();
        shrinker.operations();
        shrinker.cores();
        if size(&shrinker.best) == before || shrinker.is_over() {
            break;
        }
    }
    Shrunk {
        plan: shrinker.best,
        report: shrinker.report,
        runs: shrinker.runs,
    }
}

fn size(plan: &Plan) -> (usize, usize, usize) {
    let cores = plan.cores.iter().map(|cores| usize::from(*cores)).sum();
    (plan.fault_count(), plan.operations(), cores)
}

impl Shrinker<'_> {
    fn is_over(&self) -> bool {
        self.runs >= self.runs_max
    }

    /// Keeps the smaller plan if it fails alike.
    fn try_plan(&mut self, smaller: Plan) -> bool {
        if self.is_over() || smaller == self.best {
            return false;
        }
        self.runs += 1;
        let report = run(&smaller, None);
        let fails_alike = report
            .failure
            .as_ref()
            .is_some_and(|failure| failure.check == self.check);
        if fails_alike {
            self.best = smaller;
            self.report = report;
        }
        (self.progress)(&self.best, self.runs);
        fails_alike
    }

    /// Leaves out ranges of `len` things, ever shorter ones.
    fn leave_out(&mut self, len: impl Fn(&Plan) -> usize, remove: impl Fn(&mut Plan, usize, usize)) {
        let mut step = len(&self.best);
        while step > 0 && !self.is_over() {
            let mut start = 0;
            while start < len(&self.best) && !self.is_over() {
                let end = (start + step).min(len(&self.best));
                let mut smaller = self.best.clone();
                remove(&mut smaller, start, end);
                if !self.try_plan(smaller) {
                    start = end;
                }
            }
            step /= 2;
        }
    }

    fn faults(&mut self) {
        self.leave_out(
            |plan| plan.faults.len(),
            |plan, start, end| drop(plan.faults.drain(start..end)),
        );
        self.leave_out(
            |plan| plan.faults_at.len(),
            |plan, start, end| drop(plan.faults_at.drain(start..end)),
        );
        let mut uncrashed = self.best.clone();
        uncrashed.crash_at_sync = None;
        self.try_plan(uncrashed);
        self.leave_out(
            |plan| plan.rudenesses.len(),
            |plan, start, end| drop(plan.rudenesses.drain(start..end)),
        );
    }

    fn clients(&mut self) {
        // One is left: the last reads need it.
        self.leave_out(
            |plan| plan.clients.len().saturating_sub(1),
            |plan, start, end| drop(plan.clients.drain(start..end)),
        );
    }

    fn threads(&mut self) {
        for client in 0..self.best.clients.len() {
            self.leave_out(
                |plan| plan.clients[client].threads.len(),
                |plan, start, end| drop(plan.clients[client].threads.drain(start..end)),
            );
        }
    }

    fn operations(&mut self) {
        for client in 0..self.best.clients.len() {
            for thread in 0..self.best.clients[client].threads.len() {
                self.leave_out(
                    |plan| plan.clients[client].threads[thread].len(),
                    |plan, start, end| drop(plan.clients[client].threads[thread].drain(start..end)),
                );
            }
        }
    }

    fn cores(&mut self) {
        for start in 0..self.best.cores.len() {
            let mut smaller = self.best.clone();
            smaller.cores[start] = 1;
            self.try_plan(smaller);
        }
    }
}
