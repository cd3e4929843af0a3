//! What a thread tells the history of: calls, answers, silence.

use super::connection::ConnectionEnd;
use super::operation::{Operation, Stage};
use super::thread::Thread;
use crate::history::{Call, Process, Recorder, Stopped};
use crate::target::Answer;

impl Thread {
    pub(crate) fn record_call(&mut self, process: Process, operation: &Operation) {
        let call = self.call(operation);
        if let Some(recorder) = &mut self.recorder {
            let recorded = recorder.called(process, call);
            self.go_on_if(recorded);
        }
    }

    /// `may_be_applied`: by an earlier sending.
    pub(crate) fn record_answer(
        &mut self,
        process: &mut Process,
        call: Call,
        may_be_applied: bool,
        answer: &Answer<'_>,
    ) {
        if let (Some(recorder), Answer::Response(response)) = (&mut self.recorder, answer) {
            let recorded = recorder.answered(*process, call, may_be_applied, response);
            self.go_on_if(recorded.map(|next| *process = next));
        }
    }

    /// Puts another process in the place of one that goes on calling elsewhere, which is returned.
    pub(crate) fn change_process(&self, process: &mut Process) -> Process {
        let recorder = self.recorder.as_ref();
        let other = recorder.map_or(*process, Recorder::new_process);
        std::mem::replace(process, other)
    }

    pub(crate) fn record_silence(&mut self, process: &mut Process, operation: &Operation) {
        let call = self.call(operation);
        if let Some(recorder) = &mut self.recorder {
            let recorded = recorder.unanswered(*process, call);
            self.go_on_if(recorded.map(|next| *process = next));
        }
    }

    /// Its present request, for the recorder.
    pub(crate) fn call(&self, operation: &Operation) -> Call {
        let write = match &operation.stage {
            Stage::Write(write) => Some(self.ledger.identity(operation.drawn.key, write).sequence),
            _ => None,
        };
        let key = operation.drawn.key;
        Call { key, write }
    }

    /// Hands over what is left, at the end of the phase.
    pub(super) fn finish_record(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            let recorded = recorder.finish();
            self.go_on_if(recorded);
        }
    }

    /// A history with gaps is none: the phase ends. The reason comes from who writes it.
    fn go_on_if(&self, recorded: Result<(), Stopped>) {
        if recorded == Err(Stopped) {
            let reason = "the history could not be written".to_owned();
            self.shared.end(ConnectionEnd::Broken(reason));
        }
    }
}
