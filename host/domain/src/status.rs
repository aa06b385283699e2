//! A channel's status and holds: one table of what follows from what.
//!
//! An event that has nothing to do in a status changes nothing; a user's command that makes no
//! sense is refused. The caller saves the outcome and its effect together.

use std::fmt;

use privatix_plugin_api::message::{Status, StopReason};

/// A reason for which a channel may not be active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// The user suspended it.
    User,
    /// It is not paid for.
    Payment,
    /// The service could not be started.
    Fault,
}

impl Hold {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::User, Self::Payment, Self::Fault];

    fn bit(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Payment => 2,
            Self::Fault => 4,
        }
    }

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Payment => "payment",
            Self::Fault => "fault",
        }
    }
}

/// A set of holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Holds(u8);

impl Holds {
    /// No hold.
    pub const NONE: Self = Self(0);

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a hold is among them.
    pub fn contains(self, hold: Hold) -> bool {
        self.0 & hold.bit() != 0
    }

    /// With one more.
    #[must_use]
    pub fn with(self, hold: Hold) -> Self {
        Self(self.0 | hold.bit())
    }

    /// With one less.
    #[must_use]
    pub fn without(self, hold: Hold) -> Self {
        Self(self.0 & !hold.bit())
    }

    /// As a number for a table: 1 user, 2 payment, 4 fault.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From a table's number; unknown bits are dropped.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }
}

impl fmt::Display for Holds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Hold::ALL.into_iter().filter(|hold| self.contains(*hold)).collect();
        let names: Vec<_> = names.into_iter().map(Hold::as_str).collect();
        out.write_str(&names.join(","))
    }
}

/// What may happen to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The access message was made (agent), or received and verified (client).
    AccessReady,
    /// `start` was answered "ready", or `ServiceReady`, or `StartSession`.
    Ready,
    /// None of these came within the activation time-out.
    ActivationTimedOut,
    /// `start` was answered with an error, or not in time.
    StartFailed,
    /// `StopSession`, or `stop` acknowledged with no open session, or forced after three stops.
    Stopped,
    /// Billing or a time-out found a reason.
    HoldAdded(Hold),
    /// The reason is gone.
    HoldRemoved(Hold),
    /// The user's command.
    Suspend,
    /// The user's command.
    Resume,
    /// The user's command, or the end of the contract.
    Terminate,
}

/// What the module has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// To serve the channel.
    Start,
    /// To serve it no longer.
    Stop(StopReason),
}

/// Status and holds of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelState {
    /// The status.
    pub status: Status,
    /// The holds.
    pub holds: Holds,
}

/// Whether a channel has ended, or is ending: nothing brings it back.
pub fn is_over(status: Status) -> bool {
    matches!(status, Status::Terminating | Status::Terminated)
}

/// Whether a channel has ended. Nothing happens to it any more.
pub fn has_ended(status: Status) -> bool {
    status == Status::Terminated
}

/// Whether a channel is not used, and no module has to be waited for until it is not.
pub fn is_at_rest(status: Status) -> bool {
    matches!(status, Status::Suspended | Status::Terminated)
}

/// What has become due by a time, and why: of an activation that is waited for until `activate_by`,
/// and of a fault that is held against a channel until `fault_until`. Times are Unix seconds.
pub fn overdue(
    activate_by: Option<u64>,
    fault_until: Option<u64>,
    now: u64,
) -> Option<(Event, &'static str)> {
    if activate_by.is_some_and(|by| by <= now) {
        return Some((Event::ActivationTimedOut, "not active in time"));
    }
    let forgiven = fault_until.is_some_and(|until| until <= now);
    forgiven.then_some((Event::HoldRemoved(Hold::Fault), "trying again"))
}

/// The user's command makes no sense in this status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not possible in status {0}")]
pub struct BadStatus(pub Status);

/// What follows.
///
/// # Errors
/// [`BadStatus`] for a user's command that makes no sense.
pub fn transition(
    state: ChannelState,
    event: Event,
) -> Result<(ChannelState, Option<Effect>), BadStatus> {
    let ChannelState { status, holds } = state;
    let over = is_over(status);
    let senseless = match event {
        Event::Suspend => over || holds.contains(Hold::User),
        Event::Resume => over || !holds.contains(Hold::User),
        Event::Terminate => over,
        _ => false,
    };
    if senseless {
        return Err(BadStatus(status));
    }
    Ok(match event {
        Event::AccessReady => arrive(status == Status::Pending, state),
        Event::Ready if status == Status::Activating => (with_status(state, Status::Active), None),
        Event::ActivationTimedOut if status == Status::Activating => hold(state, Hold::Fault),
        // Active means that a module serves the channel now.
        Event::StartFailed if status.allows_use() => hold(state, Hold::Fault),
        Event::Stopped if status == Status::Suspending => {
            arrive(true, with_status(state, Status::Suspended))
        }
        Event::Stopped if status == Status::Terminating => {
            (with_status(state, Status::Terminated), None)
        }
        Event::HoldAdded(reason) if !over => hold(state, reason),
        Event::Suspend => hold(state, Hold::User),
        Event::HoldRemoved(reason) if !over => release(state, reason),
        Event::Resume => release(state, Hold::User),
        Event::Terminate if matches!(status, Status::Pending | Status::Suspended) => {
            (with_status(state, Status::Terminated), None)
        }
        Event::Terminate => {
            (with_status(state, Status::Terminating), Some(Effect::Stop(StopReason::Terminated)))
        }
        _ => (state, None),
    })
}

/// Why a module is told to stop a channel of this status.
pub fn stop_reason(status: Status) -> StopReason {
    if is_over(status) { StopReason::Terminated } else { StopReason::Suspended }
}

/// Of a history, newest first: the newest change that set a hold, or ended the channel. That is the
/// reason to show for what keeps, or last kept, a channel from being active.
pub fn trouble(newest_first: impl IntoIterator<Item = ChannelState>) -> Option<usize> {
    let states: Vec<_> = newest_first.into_iter().collect();
    let before = |at: usize| states.get(at + 1).copied();
    let sets_a_hold = |at: usize| {
        let (now, before) = (states[at].holds.0, before(at).map_or(0, |before| before.holds.0));
        now & !before != 0
    };
    let ends = |at: usize| {
        let over = |state: ChannelState| is_over(state.status);
        over(states[at]) && !before(at).is_some_and(over)
    };
    (0..states.len()).find(|at| sets_a_hold(*at) || ends(*at))
}

/// Into activating or suspended, as the holds say.
fn arrive(applies: bool, state: ChannelState) -> (ChannelState, Option<Effect>) {
    if !applies {
        (state, None)
    } else if state.holds.is_empty() {
        (with_status(state, Status::Activating), Some(Effect::Start))
    } else {
        (with_status(state, Status::Suspended), None)
    }
}

fn hold(state: ChannelState, reason: Hold) -> (ChannelState, Option<Effect>) {
    let held = ChannelState { holds: state.holds.with(reason), ..state };
    if state.status.allows_use() {
        let stop = Effect::Stop(StopReason::Suspended);
        (with_status(held, Status::Suspending), Some(stop))
    } else {
        (held, None)
    }
}

fn release(state: ChannelState, reason: Hold) -> (ChannelState, Option<Effect>) {
    let released = ChannelState { holds: state.holds.without(reason), ..state };
    arrive(state.status == Status::Suspended, released)
}

fn with_status(state: ChannelState, status: Status) -> ChannelState {
    ChannelState { status, ..state }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(word: &str) -> Event {
        match word {
            "access" => Event::AccessReady,
            "ready" => Event::Ready,
            "timeout" => Event::ActivationTimedOut,
            "failed" => Event::StartFailed,
            "stopped" => Event::Stopped,
            "+payment" => Event::HoldAdded(Hold::Payment),
            "-payment" => Event::HoldRemoved(Hold::Payment),
            "-fault" => Event::HoldRemoved(Hold::Fault),
            "suspend" => Event::Suspend,
            "resume" => Event::Resume,
            "terminate" => Event::Terminate,
            _ => panic!("{word}"),
        }
    }

    fn state(words: &str) -> ChannelState {
        let (status, held) = words.split_once('+').unwrap_or((words, ""));
        let holds =
            Hold::ALL.into_iter().filter(|hold| held.split(',').any(|h| h == hold.as_str()));
        let holds = holds.fold(Holds::NONE, Holds::with);
        ChannelState { status: status.parse().expect("a status"), holds }
    }

    fn check(from: &str, word: &str, expected: &str) {
        let outcome = match transition(state(from), event(word)) {
            Err(BadStatus(_)) => "BadStatus".to_owned(),
            Ok((to, effect)) => {
                let plus = if to.holds.is_empty() { "" } else { "+" };
                let told = match effect {
                    None => "",
                    Some(Effect::Start) => " start",
                    Some(Effect::Stop(StopReason::Terminated)) => " stop for good",
                    Some(Effect::Stop(_)) => " stop",
                };
                format!("{}{plus}{}{told}", to.status, to.holds)
            }
        };
        assert_eq!(outcome, expected, "{from} on {word}");
    }

    /// Every status with every event; `=` is "nothing changes".
    #[test]
    fn the_whole_table() {
        let events = [
            "access",
            "ready",
            "timeout",
            "stopped",
            "+payment",
            "-payment",
            "suspend",
            "resume",
            "terminate",
        ];
        let table: &[(&str, [&str; 9])] = &[
            (
                "pending",
                [
                    "activating start",
                    "=",
                    "=",
                    "=",
                    "pending+payment",
                    "=",
                    "pending+user",
                    "BadStatus",
                    "terminated",
                ],
            ),
            (
                "pending+user",
                [
                    "suspended+user",
                    "=",
                    "=",
                    "=",
                    "pending+user,payment",
                    "=",
                    "BadStatus",
                    "pending",
                    "terminated+user",
                ],
            ),
            (
                "activating",
                [
                    "=",
                    "active",
                    "suspending+fault stop",
                    "=",
                    "suspending+payment stop",
                    "=",
                    "suspending+user stop",
                    "BadStatus",
                    "terminating stop for good",
                ],
            ),
            (
                "active",
                [
                    "=",
                    "=",
                    "=",
                    "=",
                    "suspending+payment stop",
                    "=",
                    "suspending+user stop",
                    "BadStatus",
                    "terminating stop for good",
                ],
            ),
            (
                "suspending+user",
                [
                    "=",
                    "=",
                    "=",
                    "suspended+user",
                    "suspending+user,payment",
                    "=",
                    "BadStatus",
                    "suspending",
                    "terminating+user stop for good",
                ],
            ),
            (
                "suspending",
                [
                    "=",
                    "=",
                    "=",
                    "activating start",
                    "suspending+payment",
                    "=",
                    "suspending+user",
                    "BadStatus",
                    "terminating stop for good",
                ],
            ),
            (
                "suspended+user",
                [
                    "=",
                    "=",
                    "=",
                    "=",
                    "suspended+user,payment",
                    "=",
                    "BadStatus",
                    "activating start",
                    "terminated+user",
                ],
            ),
            (
                "suspended+payment",
                [
                    "=",
                    "=",
                    "=",
                    "=",
                    "=",
                    "activating start",
                    "suspended+user,payment",
                    "BadStatus",
                    "terminated+payment",
                ],
            ),
            (
                "suspended+user,payment",
                [
                    "=",
                    "=",
                    "=",
                    "=",
                    "=",
                    "suspended+user",
                    "BadStatus",
                    "suspended+payment",
                    "terminated+user,payment",
                ],
            ),
            (
                "terminating",
                ["=", "=", "=", "terminated", "=", "=", "BadStatus", "BadStatus", "BadStatus"],
            ),
            ("terminated", ["=", "=", "=", "=", "=", "=", "BadStatus", "BadStatus", "BadStatus"]),
        ];
        for (from, row) in table {
            for (word, expected) in events.iter().zip(row) {
                check(from, word, if *expected == "=" { from } else { expected });
            }
        }
        check("suspended+fault", "-fault", "activating start");
        for (from, _) in table {
            let held = "suspending+fault stop";
            check(
                from,
                "failed",
                if ["activating", "active"].contains(from) { held } else { from },
            );
        }
        check("suspended+user,fault", "-fault", "suspended+user");
    }

    #[test]
    fn predicates_agree_with_what_the_table_allows() {
        let event = [
            Event::AccessReady,
            Event::Ready,
            Event::ActivationTimedOut,
            Event::StartFailed,
            Event::Stopped,
            Event::HoldAdded(Hold::Payment),
            Event::HoldRemoved(Hold::Payment),
            Event::Suspend,
            Event::Resume,
            Event::Terminate,
        ];
        for status in Status::ALL {
            let state = ChannelState { status, holds: Holds::NONE };
            let next = event.iter().filter_map(|event| transition(state, *event).ok());
            let next: Vec<_> = next.map(|(to, _)| to.status).collect();
            assert_eq!(is_over(status), next.iter().all(|to| is_over(*to)), "{status}");
            assert_eq!(has_ended(status), next.iter().all(|to| *to == status), "{status}");
            let stopped = transition(state, Event::Stopped).map(|(to, _)| to.status);
            let rests = !status.allows_use() && stopped == Ok(status);
            assert_eq!(is_at_rest(status), rests && status != Status::Pending, "{status}");
            let for_good = stop_reason(status) == StopReason::Terminated;
            assert_eq!(for_good, is_over(status), "{status}");
        }
    }

    #[test]
    fn what_is_due_is_due_at_its_second_and_nothing_before() {
        for (activate_by, fault_until, expected) in [
            (None, None, None),
            (Some(11), Some(11), None),
            (Some(10), None, Some("not active in time")),
            (Some(9), Some(9), Some("not active in time")),
            (None, Some(10), Some("trying again")),
            (Some(11), Some(10), Some("trying again")),
        ] {
            let due = overdue(activate_by, fault_until, 10).map(|(_, why)| why);
            assert_eq!(due, expected, "{activate_by:?} {fault_until:?}");
        }
    }

    #[test]
    fn trouble_is_the_newest_change_that_set_a_hold_or_ended_the_channel() {
        for (oldest_first, expected) in [
            ("pending activating active", None),
            ("activating active suspending+fault suspended+fault activating", Some(2)),
            ("active suspending+fault suspended+fault activating suspending+fault", Some(4)),
            ("active suspending+payment suspending+user,payment suspended+user", Some(2)),
            ("active suspending+payment suspended+payment terminated+payment", Some(3)),
            ("active terminating terminated", Some(1)),
            ("", None),
        ] {
            let states: Vec<_> = oldest_first.split_whitespace().map(state).collect();
            let found = trouble(states.iter().rev().copied());
            let at = found.map(|from_the_end| states.len() - 1 - from_the_end);
            assert_eq!(at, expected, "{oldest_first}");
        }
    }

    #[test]
    fn holds_survive_a_table() {
        for bits in 0..8 {
            assert_eq!(Holds::from_bits(bits).bits(), bits);
        }
        assert_eq!(Holds::from_bits(255).bits(), 7);
    }
}
