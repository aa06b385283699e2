//! A call that was asked for, and its answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use privatix_plugin_api::message::{ApiError, ErrorName};
use tokio::task::JoinHandle;

use super::gone::{Gone, Here};

/// The answer to a call, when there is one. It needs no runtime where it is waited for.
///
/// Dropped, it is waited for no longer. A call that has not had its turn by then is broken off.
#[must_use = "a call that nobody waits for may be broken off"]
pub struct Asked<T>(State<T>);

type Task<T> = JoinHandle<Result<T, ApiError>>;

enum State<T> {
    Ready(Option<Result<T, ApiError>>),
    Begun(Task<T>),
    /// For its turn, as long as somebody is here; it may have begun since.
    Waiting(Task<T>, Here),
}

impl<T> Asked<T> {
    pub(super) fn ready(answer: Result<T, ApiError>) -> Self {
        Self(State::Ready(Some(answer)))
    }

    pub(super) fn begun(task: Task<T>) -> Self {
        Self(State::Begun(task))
    }

    pub(super) fn waiting(task: Task<T>, here: Here) -> Self {
        Self(State::Waiting(task, here))
    }

    /// The answer, for somebody who may go away: the call is broken off then if it still waits for its
    /// turn. If it has begun, this returns at its end all the same, so that the caller can keep until
    /// then what it holds for the call.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn unless_gone(mut self, gone: &Gone) -> Result<T, ApiError> {
        if matches!(self.0, State::Waiting(..)) {
            if let Some(answer) = gone.unless(&mut self).await {
                return answer;
            }
            if let State::Waiting(task, here) = self.0 {
                drop(here);
                self = Self::begun(task);
            }
        }
        self.await
    }
}

// Nothing in it is pinned: a task's handle may be moved.
impl<T> Unpin for Asked<T> {}

impl<T> Future for Asked<T> {
    type Output = Result<T, ApiError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let task = match &mut self.0 {
            // Asked again after its answer.
            State::Ready(answer) => {
                let answer = answer.take();
                return Poll::Ready(answer.unwrap_or_else(|| Err(ErrorName::Internal.into())));
            }
            State::Begun(task) | State::Waiting(task, _) => task,
        };
        // A task ends without an outcome only when the whole runtime does.
        let outcome = ready!(Pin::new(task).poll(context));
        Poll::Ready(outcome.unwrap_or_else(|_| Err(ErrorName::Internal.into())))
    }
}
