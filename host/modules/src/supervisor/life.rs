//! Where a module is in its life: what [`step`](super::step) goes from and comes to.

use std::time::Duration;

use privatix_plugin_api::message::ClientKey;

use super::plan::{Files, Moment};
use crate::lifecycle::NotUp;
use crate::problem::Problem;

/// Where a module is in its life.
#[derive(Debug, Clone)]
pub(super) struct Life<P> {
    pub(super) name: String,
    pub(super) removal_grace: Duration,
    pub(super) files: Files,
    /// What serves.
    pub(super) running: Option<P>,
    /// What is under way.
    pub(super) phase: Phase<P>,
    /// Whether these files were judged; nothing is done again while they stay as they are.
    pub(super) is_judged: bool,
    pub(super) absent_since: Option<Moment>,
    pub(super) retry: Option<Retry<P>>,
    /// What is in its way that the files do not show.
    pub(super) obstacle: Option<Obstacle>,
    /// Whether what the operator says has to be asked for.
    pub(super) asks: bool,
    /// When to look again although nothing has changed.
    pub(super) poll: Option<Moment>,
    /// Whether a library of it was created in this process.
    pub(super) created: bool,
    pub(super) is_shown_removed: bool,
    /// Whether the host goes down.
    pub(super) going_down: bool,
}

/// What is under way, and what it is for.
#[derive(Debug, Clone)]
pub(super) enum Phase<P> {
    Idle,
    Asking,
    Examining(Files),
    Claiming(Try<P>),
    Registering(P),
    Proving(Try<P>),
    Listing(Try<P>),
    /// The old version makes way.
    Leaving {
        old: P,
        new: P,
        served: Vec<ClientKey>,
    },
    Starting(Try<P>),
    Replacing {
        old: P,
        new: P,
    },
    RollingBack {
        old: P,
        new: P,
        why: NotUp,
    },
    Ending(P, Then),
    Over,
}

/// A package, after so many tries of it in vain.
#[derive(Debug, Clone)]
pub(super) struct Try<P> {
    pub(super) package: P,
    pub(super) attempts: u32,
}

/// A package that said no and is asked again, with back-off.
#[derive(Debug, Clone)]
pub(super) struct Retry<P> {
    pub(super) at: Moment,
    pub(super) of: Try<P>,
}

/// Why what runs is taken down.
#[derive(Debug, Clone)]
pub(super) enum Then {
    Removed,
    Aside(Problem),
    Down,
}

/// Something in a module's way that its files do not show. It is looked at again when the operator
/// says something, or a product id is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The operator has switched it off; its files are not even looked at.
    SwitchedOff,
    /// Another module has its product, or its library is set aside.
    Other,
}

impl<P> Life<P> {
    /// A module of which nothing is known. `removal_grace` is how long its library may be gone before
    /// it counts as removed.
    pub(super) fn new(name: String, removal_grace: Duration) -> Self {
        Self {
            name,
            removal_grace,
            files: Files::None,
            running: None,
            phase: Phase::Idle,
            is_judged: false,
            absent_since: None,
            retry: None,
            obstacle: None,
            asks: true,
            poll: None,
            created: false,
            is_shown_removed: false,
            going_down: false,
        }
    }

    /// Whether the host goes down and nothing runs any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// When to look again, if not before.
    pub(super) fn wake(&self) -> Option<Moment> {
        if !matches!(self.phase, Phase::Idle) {
            return None;
        }
        let gone = self.absent_since.map(|since| since + self.removal_grace);
        gone.or(self.poll).or(self.retry.as_ref().map(|retry| retry.at))
    }
}
